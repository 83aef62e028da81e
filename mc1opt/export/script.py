"""A model's network and training as one readable PyTorch script, which does without mc1opt.

The script draws the same random numbers from the same seeds as `mc1opt.training.loop`, so that in float32 it
trains the same network. Its layers are literal: who reads it sees this network, not a builder of networks.
Everything else is taken from `script_layers.py` and `script_template.py`, as text.
"""

import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from mc1opt import __version__
from mc1opt.config import Config, ConvNet, CustomNetwork, config_id
from mc1opt.data.named import CIFAR10, NAMED
from mc1opt.data.splits import SPLIT_SEED
from mc1opt.dataset import DataSet, DataShape
from mc1opt.errors import ModelError
from mc1opt.export.source import ExportSource
from mc1opt.models.layers import Layer, walk
from mc1opt.spec import DEVICES, Precision
from mc1opt.training.model_folder import weights_model

if TYPE_CHECKING:
    from torch import nn

TEMPLATE = Path(__file__).with_name("script_template.py")
LAYERS = Path(__file__).with_name("script_layers.py")


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
    top, _, body = TEMPLATE.read_text().partition("\n\n\n")
    body = LAYERS.read_text().partition("\n\n\n")[2] + "\n\n" + body
    *blocks, _, constants = top.rpartition('"""\n\n')[2].split("\n\n")
    imports = "\n\n".join(blocks)  # without those of mc1opt
    left = data.train_images - data.validation_images
    values = {
        "SEED": str(source.seed or 0),
        "EPOCHS": str(source.fidelity.epochs),
        "TRAIN_IMAGES": f"{min(source.fidelity.train_images, left):_}",
        "VALIDATION_IMAGES": f"{data.validation_images:_}",
        "SIZE": str(data.size),
        "CLASSES": str(data.classes),
        "SPLIT_SEED": str(SPLIT_SEED),
        "BFLOAT16": _bfloat16_devices(source),
    }
    for part in (config, config.optimizer, config.schedule, config.augmentation):
        values |= {name.upper(): _literal(value) for name, value in part}
    # The functions that the template calls, and those that take their place.
    functions = {
        "sgd": config.optimizer.kind,
        "one_cycle": config.schedule.kind,
        "channels": config.normalisation,
        "random_flips": f"{'alternating' if config.augmentation.flip == 'alternating' else 'random'}_flips",
        "load_cifar10": "load_cifar10" if _own_images(source) is None else "load_arrays",
    }
    body = _with_layers(body, config, data.shape)
    if config.progressive_size is None or config.progressive_size >= data.size:
        body = body.replace("            batch = shrink(batch, epoch)\n", "")
    if source.class_weights is None:
        body = body.replace("    weights = balanced_weights(labels)\n", "")
        loss = "loss = F.cross_entropy(logits, target, label_smoothing=LABEL_SMOOTHING)"
        body = re.sub(r"loss = F\.cross_entropy\([^)]*\)", loss, body)
    if data.validation_first:  # in the last one of the two places
        before, call, after = body.rpartition("order = stratified_order(")
        body = f"{before}{call.replace('stratified_order', 'chosen_first')}{after}"
    if not config.weight_averaging:
        body = re.sub(r"^ +(averaged = |update_average\().*\n", "", body, flags=re.MULTILINE)
        body = re.sub(r"\baveraged\b", "network", body)
    for name, function in functions.items():
        body = re.sub(rf"(?<!def )\b{name}\(", f"{function}(", body)
    body = _without_unused(body)
    lines = [
        _set(line, values) for line in constants.splitlines() if re.search(rf"\b{line.split()[0]}\b", body)
    ]
    for module in ("copy", "math"):
        if f"{module}." not in body:
            imports = imports.replace(f"import {module}\n", "")
    return "\n\n".join([_header(source, file_name), imports, "\n".join(lines), "\n" + body])


def run_script_network(path: Path, source: ExportSource) -> "nn.Module":
    """The network of a script that was just written here, with the model's weights: logits from images."""
    import torch

    state = weights_model(source.weights, source.config, source.task.shape).state_dict()
    names: dict[str, object] = {"__name__": "script"}
    exec(compile(path.read_text(), str(path), "exec"), names)
    build = names["build_network"]
    assert callable(build)
    network: nn.Module = build(torch.zeros(2, *source.task.image_shape))
    # The same layers in the same order, under other names.
    network.load_state_dict(dict(zip(network.state_dict(), state.values(), strict=True)))
    return network.to(memory_format=torch.channels_last).eval()


def _bfloat16_devices(source: ExportSource) -> str:
    """As a tuple's text. On a GPU mc1opt always trains in bfloat16, on a CPU where that is faster."""
    on_cpu = source.device == "cpu" and source.precision == "bfloat16"
    return '("cuda", "cpu")' if on_cpu else '("cuda",)'


def _own_images(source: ExportSource) -> str | None:
    """The name of the images, if they are not CIFAR-10's."""
    name = CIFAR10 if source.data is None else source.data["name"]
    return None if name == CIFAR10 else name


def _header(source: ExportSource, file_name: str) -> str:
    origin = f"study {_harmless(source.study)}, " if source.study else ""
    own = _own_images(source)
    named = NAMED.get(own or CIFAR10)
    images = named.title if named else f"the images {_harmless(own or '')}"
    needed = "torch and torchvision" if own is None else "torch and numpy"
    return f'''"""A network for {images} and its training. It needs {needed}.

    python {file_name}              train; the accuracy on the validation images
    python {file_name} --test       train on all images; the accuracy on the test images
    python {file_name} --data DIR   the folder of the images; ./data if not given

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


# ---- The template's parts --------------------------------------------------------------------------------


def _without_unused(body: str) -> str:
    """The definitions without those that nothing calls but themselves."""
    for definition in body.split("\n\n\n"):
        names = re.findall(r"^(?:def|class) (\w+)", definition, re.MULTILINE)
        if names and len(re.findall(rf"\b{names[0]}\(", body)) == 1:
            return _without_unused(body.replace(definition + "\n\n\n", ""))
    return body


def _literal(value: object) -> str:
    """As Python's formatters write it: texts in double quotes."""
    return f'"{value}"' if isinstance(value, str) else repr(value)


def _set(line: str, values: dict[str, str]) -> str:
    """A line "NAME = value  # comment" with another value."""
    name, _, rest = line.partition(" = ")
    return f"{name} = {values[name]}{''.join(rest.partition('  #')[1:])}"


def _with_layers(body: str, config: Config, data: DataShape) -> str:
    """The definitions with the layers of a config in `build_network`, and with its initialisation."""
    architecture = config.architecture
    assert not isinstance(architecture, CustomNetwork)  # `mc1opt.export.export` has looked
    lines = []
    for part, group in itertools.groupby(walk(architecture, data), key=_part):
        layers = list(group)
        if part:
            lines.append("# " + " x ".join(map(str, layers[-1].output)))
        elif isinstance(architecture, ConvNet):
            lines.append(f"# to the {data.classes} classes")
        lines += _lines(layers)
    before, first, after = body.partition("        normalise,\n")
    after = after[after.index("    )\n") :]
    if config.initialisation == "torch":
        after = after.replace("    initialise(network)\n", "")
    if not (isinstance(architecture, ConvNet) and architecture.identity_initialisation):
        after = after.replace("    make_identity(network)\n", "")
    return before + first + "".join(f"        {line}\n" for line in lines) + after


def _part(layer: Layer) -> str:
    """The stem or the block that a layer belongs to; "" for the layers after them."""
    names = layer.name.split(".")
    return ".".join(names[: {"stem": 1, "blocks": 2}.get(names[0], 0)])


def _lines(layers: list[Layer]) -> list[str]:
    """The arguments of `nn.Sequential`; what is inside of a `Residual` is indented."""
    lines = []
    inner = ""
    for layer in layers:
        if inner and not layer.name.startswith(inner):
            lines.append("),")
            inner = ""
        if layer.kind == "Residual":
            lines.append("Residual(")
            inner = f"{layer.name}."
        else:
            lines.append(("    " if inner else "") + _layer(layer))
    return lines


def _layer(layer: Layer) -> str:
    if layer.kind == "FixedConvolution":
        return f"FixedConvolution(whitening_filters(normalise(images), {layer.arguments[-1]})),"
    options = [f"{name}={value!r}" for name, value in layer.options.items()]
    module = "" if layer.kind == "Scale" else "nn."
    return f"{module}{layer.kind}({', '.join([*map(repr, layer.arguments), *options])}),"
