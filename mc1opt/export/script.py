"""A model's network and training as one readable PyTorch script, which does without mc1opt.

The script draws the same random numbers from the same seeds as `mc1opt.training.loop`, so that in float32 it
trains the same network. Its layers are literal: who reads it sees this network, not a builder of networks.
"""

import itertools
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from mc1opt import __version__
from mc1opt.config import (
    CLASSES,
    IMAGE_CHANNELS,
    SGD,
    Adam,
    Augmentation,
    Config,
    ConvNet,
    Cosine,
    OneCycle,
    WhitenedStem,
    config_id,
)
from mc1opt.data.cache import CIFAR10
from mc1opt.data.splits import SPLIT_SEED
from mc1opt.errors import ModelError
from mc1opt.export import script_parts as parts
from mc1opt.export.source import ExportSource
from mc1opt.models.layers import Layer, walk
from mc1opt.spec import DEVICES, DataSet, Precision
from mc1opt.training.model_folder import weights_model

if TYPE_CHECKING:
    from torch import nn


def training_script(source: ExportSource, data: DataSet, file_name: str) -> str:
    """The text of the script.

    Args:
        source: the model: its config, and how it was trained.
        data: its images; only their number is looked at.
        file_name: what the script is called in its own help.

    Raises:
        ModelError: it is not known how long the model was trained.
    """
    if source.fidelity is None:
        raise ModelError(f"{source.title} does not say its epochs, without which a script cannot train it.")
    config = source.config
    left = data.train_images - data.validation_images
    constants = {
        "SEED": str(source.seed or 0),
        "EPOCHS": str(source.fidelity.epochs),
        "TRAIN_IMAGES": f"{min(source.fidelity.train_images, left):_}  # of those that validation leaves",
        "BATCH_SIZE": str(config.batch_size),
        "LEARNING_RATE": f"{config.optimizer.learning_rate!r}  # the peak of the schedule",
        "LABEL_SMOOTHING": repr(config.label_smoothing),
        "SPLIT_SEED": f"{SPLIT_SEED}  # decides which images validate",
        "BFLOAT16": f"{_bfloat16_devices(source)}  # devices where training computes in it",
    }
    stem = _stem(config)
    augmented = config.augmentation != Augmentation()
    definitions = [
        parts.data(own=_own_images(source) is not None),
        _augment(config.augmentation) if augmented else parts.NO_AUGMENTATION,
        parts.NORMALISE,
        *([parts.WHITENING] if stem else []),
        _network(config),
        _optimizer(config),
        _learning_rate(config),
        parts.ACCURACY,
        parts.train(
            kernel_size=stem.kernel_size if stem else None,
            normalisation=config.normalisation,
            convnet=isinstance(config.architecture, ConvNet),
        ),
        parts.MAIN,
    ]
    listed = "\n".join(f"{name} = {value}" for name, value in constants.items())
    top = "\n\n".join([_header(source, file_name), _imports(config), listed])
    return "\n\n\n".join([top, *(section.strip() for section in definitions)]) + "\n"


def run_script_network(path: Path, source: ExportSource) -> "nn.Module":
    """The network of a script that was just written here, with the model's weights: logits from images."""
    import torch

    state = weights_model(source.weights, source.config).state_dict()
    stem = _stem(source.config)
    names: dict[str, object] = {"__name__": "script"}
    exec(compile(path.read_text(), str(path), "exec"), names)
    arguments = [torch.zeros(IMAGE_CHANNELS), torch.ones(IMAGE_CHANNELS)]
    if stem is not None:
        arguments.append(torch.zeros(stem.width, IMAGE_CHANNELS, stem.kernel_size, stem.kernel_size))
    build = names["build_network"]
    assert callable(build)
    network: nn.Module = build(*arguments)
    # The same layers in the same order, under other names.
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    return network.to(memory_format=torch.channels_last).eval()


def _bfloat16_devices(source: ExportSource) -> str:
    """As a tuple's text. On a GPU mc1opt always trains in bfloat16, on a CPU where that is faster."""
    on_cpu = source.device == "cpu" and source.precision == "bfloat16"
    return '("cuda", "cpu")' if on_cpu else '("cuda",)'


def _own_images(source: ExportSource) -> str | None:
    """The name of the images, if they are not CIFAR-10's."""
    return source.data["name"] if source.data is not None and source.data["name"] != CIFAR10 else None


def _stem(config: Config) -> WhitenedStem | None:
    architecture = config.architecture
    if isinstance(architecture, ConvNet) and isinstance(architecture.stem, WhitenedStem):
        return architecture.stem
    return None


def _header(source: ExportSource, file_name: str) -> str:
    origin = f"study {_harmless(source.study)}, " if source.study else ""
    usage = [
        ("", "train; the accuracy on the validation images"),
        (" --test", "train on all images; the accuracy on the test images"),
        (" --data DIR", "the folder of the images; ./data if not given"),
    ]
    width = max(len(option) for option, _ in usage) + 3
    lines = [f"    python {file_name}{option:<{width}}{what}" for option, what in usage]
    own = _own_images(source)
    images = "CIFAR-10" if own is None else f"the images {_harmless(own)}"
    needed = "torch and torchvision" if own is None else "torch and numpy"
    return f'''"""A network for {images} and its training. It needs {needed}.

{chr(10).join(lines)}

Found by mc1opt {__version__}: {origin}config {config_id(source.config)}.
Known of it: {source.quality}.
{_how_trained(source)}"""'''


def _how_trained(source: ExportSource) -> str:
    """Other threads add up numbers in another order: what a CPU printed is printed again by as many."""
    known = source.device in DEVICES and source.precision in get_args(Precision)
    if not known or source.data is None:
        return ""
    line = f"Trained on {source.device} in {source.precision}"
    if source.accumulation > 1:
        return (
            f"{line}, where memory was short: each batch in {source.accumulation} steps.\n"
            "This script takes it whole, so its numbers are others.\n"
        )
    if source.device == "cpu":
        line += ", with one thread: OMP_NUM_THREADS=1 gives the same numbers"
    return f"{line}.\n"


def _harmless(text: str) -> str:
    """Text from a file or database, without what would end the docstring: the script is run."""
    return "".join(c if c.isprintable() and c not in '"\\' else "?" for c in text)


def _imports(config: Config) -> str:
    cosine = "import math\n" if isinstance(config.schedule, Cosine) else ""
    return f"import argparse\nimport hashlib\n{cosine}{parts.IMPORTS.strip()}"


# ---- The network -----------------------------------------------------------------------------------------


_HE_INITIALISATION = """\
    for layer in network:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
"""


def _network(config: Config) -> str:
    architecture = config.architecture
    lines = ["Normalise(mean, std),"]
    for part, group in itertools.groupby(walk(architecture), key=_part):
        layers = list(group)
        if part:
            lines.append("# " + " x ".join(map(str, layers[-1].output)))
        elif isinstance(architecture, ConvNet):
            lines.append(f"# to the {CLASSES} classes")
        lines += [_layer(layer) for layer in layers]
    body = "\n".join(" " * 8 + line for line in lines)
    arguments = "mean, std, filters" if _stem(config) is not None else "mean, std"
    drawn = _HE_INITIALISATION if config.initialisation == "he" else ""
    return f'''def build_network({arguments}):
    """From images (uint8, N x 3 x 32 x 32) to logits (N x 10)."""
    network = nn.Sequential(
{body}
    )
{drawn}    return network
'''


def _part(layer: Layer) -> str:
    """The stem or the block that a layer belongs to; "" for the layers after them."""
    names = layer.name.split(".")
    return ".".join(names[: {"stem": 1, "blocks": 2}.get(names[0], 0)])


def _layer(layer: Layer) -> str:
    if layer.kind == "FixedConvolution":
        return "Whiten(filters),"
    options = [f"{name}={value!r}" for name, value in layer.options.items()]
    return f"nn.{layer.kind}({', '.join([*map(repr, layer.arguments), *options])}),"


# ---- The recipe ------------------------------------------------------------------------------------------


def _optimizer(config: Config) -> str:
    optimizer = config.optimizer
    if isinstance(optimizer, SGD):
        options = [f"momentum={optimizer.momentum!r}", f"nesterov={optimizer.nesterov}"]
        name = "SGD"
    else:
        options = [f"betas=({optimizer.beta1!r}, {optimizer.beta2!r})"]
        name = "Adam" if isinstance(optimizer, Adam) else "AdamW"
    lines = "\n".join(" " * 8 + option + "," for option in ("lr=LEARNING_RATE", *options, "fused=True"))
    return f'''def build_optimizer(network):
    """Weight decay is not for norms and biases."""
    weights = [p for p in network.parameters() if p.ndim > 1]
    others = [p for p in network.parameters() if p.ndim <= 1]
    return torch.optim.{name}(
        [
            {{"params": weights, "weight_decay": {optimizer.weight_decay!r}}},
            {{"params": others, "weight_decay": 0.0}},
        ],
{lines}
    )
'''


def _learning_rate(config: Config) -> str:
    schedule = config.schedule
    if isinstance(schedule, OneCycle):
        return f'''def learning_rate(step, steps):
    """One cycle: linearly up to the peak, then linearly down."""
    peak = {schedule.warmup!r} * steps - 1.0
    if step <= peak and peak > 0.0:
        factor = {schedule.start!r} + (1.0 - {schedule.start!r}) * step / peak
    else:
        factor = 1.0 + ({schedule.end!r} - 1.0) * (step - peak) / (steps - 1.0 - peak)
    return LEARNING_RATE * factor
'''
    if isinstance(schedule, Cosine):
        return '''def learning_rate(step, steps):
    """From the peak to 0 along half a cosine."""
    return LEARNING_RATE * 0.5 * (1.0 + math.cos(math.pi * step / steps))
'''
    return '''def learning_rate(step, steps):
    """The same for every step."""
    return LEARNING_RATE
'''


def _augment(augmentation: Augmentation) -> str:
    said, lines = [], []
    crop, cutout = augmentation.crop, augmentation.cutout
    if crop:
        said.append(f"shifted by up to {crop} pixels")
        lines.append(f"shifts = torch.randint({-crop}, {crop + 1}, (count, 2), generator=generator)")
    if augmentation.flip:
        said.append("flipped")
        lines.append("flips = torch.rand(count, generator=generator) < 0.5")
    if cutout:
        said.append(f"cut out by {cutout} pixels")
    lines += ["rows = columns = torch.arange(32).expand(count, 32)"]
    if crop:
        lines += ["rows = reflect(rows + shifts[:, :1])", "columns = reflect(columns + shifts[:, 1:])"]
    if augmentation.flip:
        lines.append("columns = torch.where(flips[:, None], columns.flip(1), columns)")
    lines += [
        "rows, columns = rows.to(images.device), columns.to(images.device)",
        "chosen = chosen.to(images.device)",
        "batch = images[chosen[:, None, None], rows[:, :, None], columns[:, None, :]]",
    ]
    if cutout:
        lines += [
            "centres = (torch.rand(count, 2, generator=generator) * 32).long()",
            f"places = torch.arange(32) - (centres - {cutout // 2})[:, :, None]",
            f"inside = ((places >= 0) & (places < {cutout})).to(images.device)",
            "square = inside[:, 0, :, None] & inside[:, 1, None, :]",
            "batch = torch.where(square[..., None], fill, batch)",
        ]
    body = "\n".join("    " + line for line in lines)
    reflect = parts.REFLECT.strip() + "\n\n\n" if crop else ""
    return f'''{reflect}def augment(images, chosen, generator, fill):
    """A batch at random: {", ".join(said)}."""
    count = len(chosen)
{body}
    return batch.permute(0, 3, 1, 2)
'''
