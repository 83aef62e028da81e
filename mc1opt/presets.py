"""The published models: configs with a name, their row in the publication, and what it says about them.

Source: the slides of MC1, a deep-learning course's mini-challenge on hyperparameter and model tuning,
4 May 2023, which tuned CIFAR-10 classifiers by hand, one change at a time. A preset is the architecture with
the recipe of that source: stochastic gradient descent at the constant learning rate 0.1, batches of 200 (row
11: Adam). `OPEN_VALUES` says what the source leaves open for all presets, a preset's description what it
leaves open for that one, and our choice for each. A second recipe, mc1opt's own, trains the same networks
better: see `improved`. Epochs, seed and data are not part of a config; a preset has the default epochs of
both recipes. Not here: training or evaluating a preset.

The convolutional presets without batch norm have the order "pool_norm_activation", as in the search space of
`studies/cnn.py`; most textbooks put the activation before the pooling. Both are the same function: these
networks have no norm, and ReLU, which is monotonic, commutes with max pooling.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from mc1opt.config import (
    MLP,
    SGD,
    Adam,
    AdamW,
    Architecture,
    Augmentation,
    Config,
    ConvBlock,
    ConvNet,
    LinearLayer,
    Norm,
    OneCycle,
    Pooling,
)
from mc1opt.errors import UsageError

SOURCE = (
    "slides of MC1, a deep-learning course's mini-challenge on hyperparameter and model tuning, 4 May 2023"
)
OPEN_VALUES = (
    "The source says Kaiming initialisation, a name that PyTorch gives to two. We take the default of its "
    "layers (kaiming_uniform_ with a = sqrt(5)): with He's larger weights (kaiming_normal_) and images "
    "normalised by channel, two trainings of row 1 stayed far below its accuracy on validation images "
    "(benchmarks/LOG.md). "
    "It does not say how images are normalised: values from -1 to 1, as in PyTorch's own tutorial, are our "
    "reading; on validation images, normalising by channel makes no distinguishable difference to row 2. "
    "It does not mention momentum, weight decay, label smoothing, augmentation and epochs: none of the first "
    "four, and the number of epochs, are our choice. It names learning rate 0.1 and batch size 200 for the "
    "multilayer perceptrons; that the other rows have them too (row 11 the batch size) is our reading."
)
"""What the source leaves open for all presets."""

Recipe = Literal["published", "mc1opt"]
RECIPES: tuple[Recipe, ...] = ("published", "mc1opt")


@dataclass(frozen=True)
class Preset:
    """A named config, and what its source says of it."""

    name: str
    row: int
    """In the table of the source, 1 to 11."""
    published_accuracy: float
    """Test accuracy, 0 to 1, of one training."""
    parameters: int
    """Trained parameters."""
    description: str
    """What the network is, and which values are our choice."""
    config: Config
    """The network with the recipe of the source."""
    epochs: Mapping[Recipe, int]
    """Default epochs of each recipe, our choice. The recipe `mc1opt` has no more than that of the source, so
    that its gain does not come from longer training."""
    improved_learning_rate: float = 0.05
    """Peak learning rate of the recipe `mc1opt`, where it trains with SGD."""

    def with_recipe(self, recipe: Recipe) -> Config:
        """The network with one of the two recipes."""
        return self.config if recipe == "published" else improved(self.config, self.improved_learning_rate)


def improved(published: Config, learning_rate: float = 0.05) -> Config:
    """The same network with mc1opt's own recipe.

    Images normalised by channel, one cycle of the learning rate (Smith and Topin, 2018), Nesterov momentum,
    label smoothing, flip and crop, weight decay but not on biases and norms. Where the source trains with
    Adam, which is what that row is about, AdamW takes the place of Nesterov momentum. The values are usual
    for small networks on CIFAR-10 and not tuned, except the learning rate of row 5: with 0.05 its first epoch
    diverges, because 73,728 values enter the classifier without a norm; on validation images 0.02 was better
    than 0.01 (benchmarks/LOG.md).
    """
    optimizer: SGD | AdamW = SGD(learning_rate=learning_rate, momentum=0.9, nesterov=True, weight_decay=5e-4)
    if isinstance(published.optimizer, Adam):
        optimizer = AdamW(learning_rate=0.001, weight_decay=0.05)
    return Config(
        architecture=published.architecture,
        optimizer=optimizer,
        schedule=OneCycle(),
        batch_size=128,
        label_smoothing=0.1,
        augmentation=Augmentation(flip=True, crop=2),
        initialisation=published.initialisation,
    )


def get_preset(name: str) -> Preset:
    """The preset of this name.

    Raises:
        UsageError: there is none; the message lists the nearest names, and all.
    """
    if name in PRESETS:
        return PRESETS[name]
    nearest = difflib.get_close_matches(name.lower(), PRESETS, n=3)
    guess = f" Did you mean {' or '.join(nearest)}?" if nearest else ""
    raise UsageError(f"there is no preset named {name!r}.{guess} The presets are: {', '.join(PRESETS)}.")


def get_recipe(name: str) -> Recipe:
    """The recipe of this name.

    Raises:
        UsageError: there is none.
    """
    for recipe in RECIPES:
        if recipe == name:
            return recipe
    raise UsageError(f"unknown recipe {name!r}. Allowed: {', '.join(RECIPES)}.")


def _published(architecture: Architecture) -> Config:
    """The architecture with the recipe of the source; see the module's docstring."""
    return Config(
        architecture=architecture,
        optimizer=SGD(learning_rate=0.1),
        batch_size=200,
        initialisation="torch",
        normalisation="symmetric",
    )


def _linear(*widths: int) -> tuple[LinearLayer, ...]:
    return tuple(LinearLayer(width=width) for width in widths)


def _two_convolutions(
    widths: tuple[int, int],
    *,
    pooling: Pooling | None = None,
    dropout: float = 0.0,
    head: tuple[int, ...] = (),
) -> Config:
    """Two convolutions with kernel size 5 and no padding; dropout only after the first block."""
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
    """Convolutions 32 and 128 wide (5x5, no padding), without linear layers before the classifier."""
    return _two_convolutions((32, 128))


def cnn_32_128_pool() -> Config:
    """As cnn-32-128, with 2x2 max pooling after each convolution."""
    return _two_convolutions((32, 128), pooling=Pooling(kind="max"))


def cnn_32_128_pool_dropout() -> Config:
    """As cnn-32-128-pool, with dropout after the first block (after its pooling).

    The source does not print the rate; 0.2 is our choice.
    """
    return _two_convolutions((32, 128), pooling=Pooling(kind="max"), dropout=0.2)


def _deep_network(norm: Norm = "none") -> ConvNet:
    """The geometry that the source's table of layers implies; `cnn_deep` says how."""
    overlapping = Pooling(kind="max", size=2, stride=1)
    poolings = (Pooling(kind="max"), overlapping, None, overlapping)
    return ConvNet(
        blocks=tuple(
            ConvBlock(
                width=width,
                kernel_size=5,
                padding=1,
                norm=norm,
                pooling=pooling,
                dropout=0.2 if number == 0 else 0.0,
            )
            for number, (width, pooling) in enumerate(zip((64, 128, 256, 256), poolings, strict=True))
        ),
        order="pool_norm_activation" if norm == "none" else "norm_activation_pool",
        head=(LinearLayer(width=4096, norm=norm, dropout=0.5),),
    )


def cnn_deep() -> Config:
    """Convolutions 64, 128, 256 and 256 wide with max pooling and dropout, then a linear layer of 4,096.

    The source prints the outputs and parameters of its layers, which only one geometry gives: kernel size 5
    and padding 1 everywhere; 2x2 max pooling after the first convolution with stride 2, after the second and
    the fourth with stride 1. Dropout stands where its table has it, after the first pooling and after the
    linear layer; it does not print the rates: 0.2 and 0.5 are our choice.
    """
    return _published(_deep_network())


def cnn_deep_adjusted() -> Config:
    """As cnn-deep, with another stride, padding and kernel size.

    The source does not print them. Our choice: kernel size 3 and padding 2, so that each convolution adds 2
    pixels to the size of its input, where cnn-deep's take 2 away; and every pooling, also the later two, has
    stride 2. Widths, dropout and the linear layer of 4,096 are those of cnn-deep.
    """
    network = _deep_network()
    blocks = tuple(
        block.model_copy(
            update={
                "kernel_size": 3,
                "padding": 2,
                "pooling": None if block.pooling is None else Pooling(kind="max"),
            }
        )
        for block in network.blocks
    )
    return _published(ConvNet(blocks=blocks, head=network.head))


def cnn_deep_batchnorm() -> Config:
    """As cnn-deep, with batch norm after each layer, the linear layer of 4,096 among them.

    The source says "after each layer"; we take it at its word: after each of the four convolutions, before
    activation and pooling, and after the linear layer of 4,096, but not after the classifier. It does not
    say how many parameters that makes. A layer before a norm has no bias, because the norm subtracts it.
    """
    return _published(_deep_network(norm="batch"))


def cnn_deep_adam() -> Config:
    """As cnn-deep, trained with Adam.

    The source does not print the learning rate; 0.001 is our choice, and with it Adam's usual betas 0.9 and
    0.999.
    """
    return cnn_deep().model_copy(update={"optimizer": Adam(learning_rate=0.001)})


def _preset(
    row: int,
    published_accuracy: float,
    parameters: int,
    config: Callable[[], Config],
    *,
    epochs: tuple[int, int],
    improved_learning_rate: float = 0.05,
) -> Preset:
    """`epochs`: of the recipe `published`, and of `mc1opt`."""
    return Preset(
        name=config.__name__.replace("_", "-"),
        row=row,
        published_accuracy=published_accuracy,
        parameters=parameters,
        description=inspect.getdoc(config) or "",
        config=config(),
        epochs=MappingProxyType(dict(zip(RECIPES, epochs, strict=True))),
        improved_learning_rate=improved_learning_rate,
    )


PRESETS: Mapping[str, Preset] = MappingProxyType(
    {
        preset.name: preset
        for preset in (
            _preset(1, 0.5214, 402_250, mlp_128_64, epochs=(15, 15)),
            _preset(2, 0.5320, 828_490, mlp_256_128_64, epochs=(15, 15)),
            _preset(3, 0.5607, 1_191_554, cnn_6_16_fc, epochs=(10, 10)),
            _preset(4, 0.6529, 9_551_178, cnn_32_128_fc, epochs=(8, 8)),
            _preset(5, 0.6438, 842_250, cnn_32_128, epochs=(6, 6), improved_learning_rate=0.02),
            _preset(6, 0.6972, 136_970, cnn_32_128_pool, epochs=(18, 15)),
            _preset(7, 0.7142, 136_970, cnn_32_128_pool_dropout, epochs=(18, 15)),
            _preset(8, 0.7621, 54_093_194, cnn_deep, epochs=(20, 8)),
            _preset(9, 0.7653, 38_754_698, cnn_deep_adjusted, epochs=(20, 12)),
            _preset(10, 0.7302, 54_097_994, cnn_deep_batchnorm, epochs=(20, 8)),
            _preset(11, 0.7366, 54_093_194, cnn_deep_adam, epochs=(20, 8)),
        )
    }
)
"""By name, in the order of the source's rows."""
