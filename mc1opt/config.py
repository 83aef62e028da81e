"""The config of a training: architecture, optimizer, schedule's shape and augmentation, frozen, in JSON.

The config's models, its identity (`config_id`), and the arithmetic of shapes that decides whether an
architecture can exist. Not here: epochs, seed and data, which are not part of a config (see `mc1opt.spec`),
and anything that needs torch.

Shape suffixes in the code: N images, C channels, H height, W width.
"""

import hashlib
import json
from collections.abc import Callable
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, JsonValue, ValidationError, field_validator, model_validator

from mc1opt.dataset import CIFAR10_SHAPE, LARGEST_SIZE
from mc1opt.errors import ConfigError, describe_validation_error
from mc1opt.fields import Model, as_before, canonical_json, later_field, without_identity

IMAGE_SIZE = CIFAR10_SHAPE.size
"""Pixels: what search spaces of one argument, `search_space(trial)`, take for the size of the images."""

SCHEMA_VERSION = 1

Activation = Literal["relu", "gelu", "silu"]
Norm = Literal["none", "batch"]
Initialisation = Literal["he", "torch"]
Normalisation = Literal["channels", "symmetric"]


# ---- Architecture ----------------------------------------------------------------------------------------


class LinearLayer(Model):
    """A fully connected layer: linear -> norm -> activation -> dropout."""

    width: int = Field(ge=1, le=16384)
    """Outputs."""
    norm: Norm = "none"
    activation: Activation = "relu"
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Probability that an output is set to zero in training."""


class Pooling(Model):
    """A pooling without padding."""

    kind: Literal["max", "average"]
    size: int = Field(default=2, ge=2, le=8)
    """Pixels."""
    stride: int = Field(default=2, ge=1, le=8)
    """Pixels."""


class ConvBlock(Model):
    """A convolution with what follows it, in the order that `ConvNet.order` says."""

    width: int = Field(ge=1, le=4096)
    """Output channels."""
    kernel_size: int = Field(default=3, ge=1, le=11)
    """Pixels."""
    stride: int = Field(default=1, ge=1, le=4)
    """Pixels."""
    padding: int = Field(default=0, ge=0, le=5)
    """Zero pixels added on each side."""
    norm: Norm = "none"
    activation: Activation = "relu"
    pooling: Pooling | None = None
    dropout: float = Field(default=0.0, ge=0.0, lt=1.0)
    """Probability that a value is set to zero in training, after everything else of the block."""
    residual: bool = later_field(False)
    """Whether a residual pair follows, before the dropout: two 3x3 convolutions with the block's width, norm
    and activation, whose output is added to their input (He et al., 2016)."""


class PlainStem(Model):
    """No stem: the first block sees the normalised image."""

    kind: Literal["plain"] = "plain"


class WhitenedStem(Model):
    """A fixed first convolution whose outputs are decorrelated, followed by an activation.

    The filters are the eigenvectors of the training images' patches, scaled to unit variance, with both
    signs: 2 * kernel_size**2 outputs for each input channel, no padding, no bias. The method is that of the
    CIFAR-10 speed records (Page, "How to train your ResNet", 2019; Jordan, "94% on CIFAR-10 in 3.29 seconds
    on a single GPU", 2024).
    """

    kind: Literal["whitened"] = "whitened"
    kernel_size: int = Field(default=2, ge=1, le=4)
    """Pixels."""
    activation: Activation = "gelu"

    def width(self, channels: int) -> int:
        """Output channels for images of so many channels."""
        return 2 * channels * self.kernel_size**2


class _Classifier(Model):
    """What all architectures have."""

    logit_scale: float = later_field(1.0, gt=0.0, le=10.0)
    """Factor of the logits; 1/9 in the CIFAR-10 speed records (Jordan, 2024)."""


class MLP(_Classifier):
    """A multilayer perceptron on the flattened image."""

    kind: Literal["mlp"] = "mlp"
    layers: tuple[LinearLayer, ...] = Field(max_length=16)
    """The hidden layers; the classifier (a linear layer to the classes) comes after them."""


class ConvNet(_Classifier):
    """A convolutional network: stem, blocks, global pooling or flattening, linear head, classifier."""

    kind: Literal["convnet"] = "convnet"
    stem: Annotated[PlainStem | WhitenedStem, Field(discriminator="kind")] = PlainStem()
    blocks: tuple[ConvBlock, ...] = Field(min_length=1, max_length=32)
    order: Literal["pool_norm_activation", "norm_activation_pool"] = "pool_norm_activation"
    """What follows a convolution. Pooling first is 1.3 to 1.5 times as fast (the order of the speed records;
    batch statistics are then taken after the pooling); the other order is that of most textbooks."""
    global_pooling: Literal["none", "max", "average"] = "none"
    """How the last feature map is reduced to one value per channel; "none" flattens it."""
    head: tuple[LinearLayer, ...] = Field(default=(), max_length=8)
    """Linear layers between the convolutions and the classifier."""
    identity_initialisation: bool = later_field(False)
    """Whether convolutions begin with filters that hand their inputs on, one output channel for each input
    channel while there are any (Jordan, 2024, section 3.3); the other filters are as drawn."""


class CustomNetwork(Model):
    """What a function of the study file builds: `build(data, **arguments)` returns a `torch.nn.Module`.

    `data` is a `mc1opt.dataset.DataShape`. The module takes normalised images (float32, N x C x H x W) and
    returns logits (N x classes). It keeps the weights that the function has drawn from torch's generator, and
    its memory format: `.to(memory_format=torch.channels_last)` makes most convolutional networks faster.
    """

    kind: Literal["custom"] = "custom"
    function: str = Field(default="build", pattern=r"^[^\W\d]\w*$")
    """Its name."""
    arguments: dict[str, JsonValue] = Field(default_factory=dict)
    """JSON values by name: what the search space suggests."""
    code: str = ""
    """Hash of the code that the function reaches (`mc1opt.study_file.code_hash`); the study definition, and
    not the search space, fills it in."""
    path: str = Field(default="", json_schema_extra=without_identity())
    """The study file; also filled in."""

    @field_validator("arguments")
    @classmethod
    def _are_finite(cls, arguments: dict[str, JsonValue]) -> dict[str, JsonValue]:
        json.dumps(arguments, allow_nan=False)
        return arguments

    def __hash__(self) -> int:
        return hash(canonical_json(self))


Architecture = MLP | ConvNet | CustomNetwork


class BlockShape(NamedTuple):
    """Output channels, height and width of a block's convolution and of its pooling."""

    convolution: tuple[int, int, int]
    pooled: tuple[int, int, int]


def conv_shapes(network: ConvNet, size: int) -> list[BlockShape]:
    """The output shapes (C, H, W) of each block on images of size x size pixels.

    With no pooling, `pooled` repeats `convolution`.

    Raises:
        ValueError: the image becomes smaller than a kernel; the message names the block, counted from 1.
    """
    if isinstance(network.stem, WhitenedStem):
        size = size - network.stem.kernel_size + 1
    shapes = []
    for number, block in enumerate(network.blocks, start=1):
        after_conv = (size + 2 * block.padding - block.kernel_size) // block.stride + 1
        if size + 2 * block.padding < block.kernel_size:
            raise ValueError(
                f"block {number}: kernel size {block.kernel_size} does not fit an image of {size}x{size} "
                f"with padding {block.padding}; use a smaller kernel, more padding, or less pooling before it"
            )
        size = after_conv
        if block.pooling is not None:
            if size < block.pooling.size:
                raise ValueError(
                    f"block {number}: pooling of size {block.pooling.size} does not fit an image of "
                    f"{size}x{size}; leave this pooling or an earlier one out"
                )
            size = (size - block.pooling.size) // block.pooling.stride + 1
        shapes.append(BlockShape((block.width, after_conv, after_conv), (block.width, size, size)))
    return shapes


# ---- Training recipe -------------------------------------------------------------------------------------


class SGD(Model):
    """Stochastic gradient descent (`torch.optim.SGD`)."""

    kind: Literal["sgd"] = "sgd"
    learning_rate: float = Field(gt=0.0, le=100.0)
    """The peak of the schedule."""
    momentum: float = Field(default=0.0, ge=0.0, lt=1.0)
    nesterov: bool = False
    weight_decay: float = Field(default=0.0, ge=0.0, le=1.0)
    """L2, added to the gradient; not on norms and biases."""

    @model_validator(mode="after")
    def _nesterov_needs_momentum(self) -> "SGD":
        if self.nesterov and self.momentum == 0.0:
            raise ValueError("nesterov needs a momentum above 0")
        return self


class Adam(Model):
    """Adam (Kingma and Ba, 2015; `torch.optim.Adam`)."""

    kind: Literal["adam"] = "adam"
    learning_rate: float = Field(gt=0.0, le=10.0)
    """The peak of the schedule."""
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=0.0, ge=0.0, le=1.0)
    """L2, added to the gradient; not on norms and biases."""


class AdamW(Model):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019; `torch.optim.AdamW`)."""

    kind: Literal["adamw"] = "adamw"
    learning_rate: float = Field(gt=0.0, le=10.0)
    """The peak of the schedule."""
    beta1: float = Field(default=0.9, ge=0.0, lt=1.0)
    beta2: float = Field(default=0.999, ge=0.0, lt=1.0)
    weight_decay: float = Field(default=0.01, ge=0.0, le=10.0)
    """Share of a weight that a step subtracts, times the learning rate; not on norms and biases."""


class Muon(Model):
    """Muon for filters and for matrices but the classifier's, Nesterov SGD for everything else.

    Muon makes each step of a matrix about orthogonal (Jordan et al., "Muon: An optimizer for hidden layers in
    neural networks", 2024; `torch.optim.Muon` with its defaults, which computes that in bfloat16). The
    filters of a convolution are a matrix of output channels x all other dimensions. Jordan's record on
    CIFAR-10, `airbench94_muon.py`, divides the work in the same way.
    """

    kind: Literal["muon"] = "muon"
    learning_rate: float = Field(gt=0.0, le=10.0)
    """The peak of the schedule for what Muon trains."""
    sgd_learning_rate: float = Field(gt=0.0, le=100.0)
    """The peak of the same schedule for the classifier, norms and biases."""
    momentum: float = Field(default=0.95, gt=0.0, lt=1.0)
    """Of both."""
    weight_decay: float = Field(default=0.0, ge=0.0, le=10.0)
    """Share of a weight that a step subtracts, times the learning rate; only of what Muon trains."""


Optimizer = Annotated[SGD | Adam | AdamW | Muon, Field(discriminator="kind")]


class Constant(Model):
    """The learning rate stays at its peak."""

    kind: Literal["constant"] = "constant"


class Cosine(Model):
    """From the peak to 0 along half a cosine (Loshchilov and Hutter, 2017), without restarts."""

    kind: Literal["cosine"] = "cosine"


class OneCycle(Model):
    """Linearly to the peak, then linearly down (Smith and Topin, 2018)."""

    kind: Literal["one_cycle"] = "one_cycle"
    warmup: float = Field(default=0.25, gt=0.0, lt=1.0)
    """Share of all steps after which the peak is reached."""
    start: float = Field(default=0.2, gt=0.0, le=1.0)
    """First learning rate, as a share of the peak."""
    end: float = Field(default=0.01, ge=0.0, le=1.0)
    """Last learning rate, as a share of the peak."""


Schedule = Annotated[Constant | Cosine | OneCycle, Field(discriminator="kind")]


class Augmentation(Model):
    """Random changes of the training images."""

    flip: bool | Literal["alternating"] = False
    """Mirrors an image left to right with probability 1/2; "alternating" does so in the first epoch, then
    mirrors each image in every second epoch (Jordan, "94% on CIFAR-10 in 3.29 seconds on a single GPU", 2024,
    section 3.6)."""
    crop: int = Field(default=0, ge=0, le=16)
    """Pixels by which an image is shifted at most, each way; reflection fills the border."""
    cutout: int = Field(default=0, ge=0, le=LARGEST_SIZE)
    """Pixels, side of the square that the mean colour replaces (DeVries and Taylor, 2017); 0 for none."""


class Config(Model):
    """Everything about a training but its epochs, seed and data."""

    architecture: Annotated[Architecture, Field(discriminator="kind")]
    optimizer: Optimizer
    schedule: Schedule = Constant()
    batch_size: int = Field(ge=1, le=8192)
    """Images per step."""
    label_smoothing: float = Field(default=0.0, ge=0.0, lt=1.0)
    weight_averaging: float = later_field(0.0, ge=0.0, le=1.0)
    """Share of all steps, the last ones, after which weights enter the average that is validated and stored,
    each step's the same (Izmailov et al., "Averaging Weights Leads to Wider Optima", 2018); 0 for none."""
    augmentation: Augmentation = Augmentation()
    progressive_size: int | None = later_field(None, ge=8, le=LARGEST_SIZE)
    """Pixels, height and width of larger training images in the first half of the epochs (progressive
    resizing: Howard, fast.ai's DAWNBench entry, 2018; Tan and Le, "EfficientNetV2", 2021); None leaves them
    as they are. Needs global pooling."""
    initialisation: Initialisation = Field(default="he", json_schema_extra=as_before())
    """How weights are drawn: "he" is normal with variance 2 / fan-in, biases 0 (He et al., 2015); "torch" is
    PyTorch's default, uniform with variance 1 / (3 fan-in), also for biases."""
    normalisation: Normalisation = Field(default="channels", json_schema_extra=as_before())
    """How images are scaled: "channels" subtracts each channel's mean over training images and divides by its
    standard deviation; "symmetric" maps the values 0 to 255 to -1 to 1."""

    @model_validator(mode="after")
    def _can_be_trained(self) -> "Config":
        network = self.architecture
        layers: tuple[LinearLayer, ...] = ()
        if not isinstance(network, CustomNetwork):
            layers = network.head if isinstance(network, ConvNet) else network.layers
        if self.batch_size < 2 and any(layer.norm == "batch" for layer in layers):
            raise ValueError(
                "batch norm after a linear layer needs a batch_size of at least 2: one value has no deviation"
            )
        if isinstance(self.optimizer, Muon) and isinstance(network, MLP) and not layers:
            raise ValueError("muon trains hidden layers, and there are none; use another optimizer")
        if self.progressive_size is not None:
            if not isinstance(network, ConvNet) or network.global_pooling == "none":
                raise ValueError(f"a progressive_size of {self.progressive_size} needs global_pooling")
            conv_shapes(network, self.progressive_size)
        return self


# ---- JSON and identity -----------------------------------------------------------------------------------


def config_id(config: Config) -> str:
    """The first 12 hexadecimal digits of the SHA-256 of the config's canonical JSON."""
    return hashlib.sha256(canonical_json(config).encode()).hexdigest()[:12]


def config_to_json(config: Config) -> dict[str, Any]:
    """The config as it is stored, with the version of its schema."""
    return {"schema_version": SCHEMA_VERSION, **config.model_dump(mode="json")}


# Named, append-only: entry n turns JSON of schema version n + 1 into version n + 2.
MIGRATIONS: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...] = ()


def config_from_json(stored: dict[str, Any]) -> Config:
    """Reads a stored config of this or any older schema version.

    Raises:
        ConfigError: the version is unknown, or the content is not a config.
    """
    fields = dict(stored)
    version = fields.pop("schema_version", None)
    if type(version) is not int or not 1 <= version <= SCHEMA_VERSION:
        raise ConfigError(
            f"a stored config has schema version {version!r}; this mc1opt reads 1 to {SCHEMA_VERSION}. "
            "Install the version that wrote it, or a newer one."
        )
    for migrate in MIGRATIONS[version - 1 :]:
        fields = migrate(fields)
    try:
        return Config.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(f"a stored config cannot be read: {describe_validation_error(error)}") from error
