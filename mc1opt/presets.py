"""The published models: configs with a name, their row in the publication, and what it says about them.

Source: the slides of MC1, a deep-learning course's mini-challenge on hyperparameter and model tuning,
4 May 2023, which tuned CIFAR-10 classifiers by hand, one change at a time. A preset is the architecture with
the recipe of that source: stochastic gradient descent at the constant learning rate 0.1, batches of 200. The
source says nothing of momentum, weight decay, label smoothing and augmentation; that there are none is our
choice. Epochs, seed and data are no part of a config. Not here: training or evaluating a preset.

The convolutional presets name the order "pool_norm_activation", the one that the search space in
`studies/cnn.py` uses; the common order has the activation before the pooling. It is the same function: these
networks have no norm, and a ReLU, which never falls as its input rises, commutes with max pooling.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from mc1opt.config import MLP, SGD, Architecture, Config, ConvBlock, ConvNet, LinearLayer, Pooling
from mc1opt.errors import UsageError


@dataclass(frozen=True)
class Preset:
    """A named config, and what its source says about it."""

    name: str
    row: int
    """In the table of the source, 1 to 11."""
    published_accuracy: float
    """On the test images, as a share of 1: a single number, of one training."""
    parameters: int
    """Trained ones."""
    description: str
    """What the network is, and which values are our choice."""
    config: Config


def get_preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        UsageError: there is none; the message has the nearest names and all of them.
    """
    if name in PRESETS:
        return PRESETS[name]
    nearest = difflib.get_close_matches(name, PRESETS, n=3)
    guess = f" Did you mean {' or '.join(nearest)}?" if nearest else ""
    raise UsageError(f"there is no preset named {name!r}.{guess} The presets are: {', '.join(PRESETS)}.")


def _published(architecture: Architecture) -> Config:
    """The architecture with the recipe of the source; see the top of this file."""
    return Config(architecture=architecture, optimizer=SGD(learning_rate=0.1), batch_size=200)


def _linear(*widths: int) -> tuple[LinearLayer, ...]:
    return tuple(LinearLayer(width=width) for width in widths)


def _two_convolutions(
    widths: tuple[int, int],
    *,
    pooling: Pooling | None = None,
    dropout: float = 0.0,
    head: tuple[int, ...] = (),
) -> Config:
    """Two convolutions with kernel size 5 and no padding, dropout after the first block alone."""
    first, second = widths
    blocks = (
        ConvBlock(width=first, kernel_size=5, pooling=pooling, dropout=dropout),
        ConvBlock(width=second, kernel_size=5, pooling=pooling),
    )
    return _published(ConvNet(blocks=blocks, head=_linear(*head)))


def mlp_128_64() -> Config:
    """Two hidden layers of 128 and 64 with ReLU."""
    return _published(MLP(layers=_linear(128, 64)))


def mlp_256_128_64() -> Config:
    """Three hidden layers of 256, 128 and 64 with ReLU."""
    return _published(MLP(layers=_linear(256, 128, 64)))


def cnn_6_16_fc() -> Config:
    """Convolutions 6 and 16 wide (5x5, no padding), then linear layers of 128 and 64."""
    return _two_convolutions((6, 16), head=(128, 64))


def cnn_32_128_fc() -> Config:
    """Wider convolutions, 32 and 128 (5x5, no padding), then linear layers of 128 and 64."""
    return _two_convolutions((32, 128), head=(128, 64))


def cnn_32_128() -> Config:
    """Convolutions 32 and 128 wide (5x5, no padding), the linear layers but the classifier removed."""
    return _two_convolutions((32, 128))


def cnn_32_128_pool() -> Config:
    """As cnn-32-128, with 2x2 max pooling after each convolution."""
    return _two_convolutions((32, 128), pooling=Pooling(kind="max"))


def cnn_32_128_pool_dropout() -> Config:
    """As cnn-32-128-pool, with dropout after the first block (after its pooling).

    The source does not print the rate; 0.2 is our choice.
    """
    return _two_convolutions((32, 128), pooling=Pooling(kind="max"), dropout=0.2)


def _preset(row: int, published_accuracy: float, parameters: int, config: Callable[[], Config]) -> Preset:
    return Preset(
        name=config.__name__.replace("_", "-"),
        row=row,
        published_accuracy=published_accuracy,
        parameters=parameters,
        description=inspect.getdoc(config) or "",
        config=config(),
    )


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            _preset(1, 0.5214, 402_250, mlp_128_64),
            _preset(2, 0.5320, 828_490, mlp_256_128_64),
            _preset(3, 0.5607, 1_191_554, cnn_6_16_fc),
            _preset(4, 0.6529, 9_551_178, cnn_32_128_fc),
            _preset(5, 0.6438, 842_250, cnn_32_128),
            _preset(6, 0.6972, 136_970, cnn_32_128_pool),
            _preset(7, 0.7142, 136_970, cnn_32_128_pool_dropout),
        )
    }
)
"""By name, in the order of the source's rows."""
