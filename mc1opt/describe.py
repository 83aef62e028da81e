"""A config or a fidelity in one line, for people."""

from typing import Any

from mc1opt.config import (
    MLP,
    SGD,
    Architecture,
    Config,
    ConvBlock,
    CustomNetwork,
    LinearLayer,
    Muon,
    OneCycle,
    WhitenedStem,
)
from mc1opt.spec import Fidelity
from mc1opt.text import plural


def describe_config(config: Config) -> str:
    """A config in one line, such as "conv 32m 64m 128, 3x3 same, relu | sgd 0.1, constant, batch 64".

    After a width, m or a is max or average pooling, with size/stride where they are not both 2, and r a
    residual pair. The number after an optimizer is its learning rate, the one after one-cycle its warm-up.
    Dropout has the rates of all layers where they differ by more than where it is.
    """
    scale = getattr(config.architecture, "logit_scale", 1.0)
    scaled = "" if scale == 1.0 else f", logits x {scale:.2g}"
    return f"{_architecture(config.architecture)}{scaled} | {_recipe(config)}"


def describe_change(before: Config, after: Config) -> str:
    """What is another in a second config: "sgd 0.1, batch 200 -> nesterov 0.3 momentum 0.9, batch 64".

    In the words of `describe_config`; what has none is named by its field: "order pool_norm_activation".
    """
    one, other = (_words(config) for config in (before, after))
    if one == other:
        one, other = (_fields(config.model_dump(mode="json")) for config in (before, after))
    left = ", ".join(word for word in one if word not in other)
    new = ", ".join(word for word in other if word not in one)
    return f"{left or 'without'} -> {new or 'without'}"


def describe_fidelity(fidelity: Fidelity) -> str:
    """The most that a training is: "5 epochs of 18,000 images"; with a short schedule, "1 + 5 epochs"."""
    short = f"{fidelity.short_epochs} + " if fidelity.short_epochs else ""
    return f"{short}{plural(fidelity.epochs, 'epoch')} of {plural(fidelity.train_images, 'image')}"


def _words(config: Config) -> list[str]:
    """The parts of `describe_config`."""
    network = config.architecture
    if isinstance(network, CustomNetwork):
        own = [network.function, *(f"{name}={value}" for name, value in network.arguments.items())]
        return [*own, *_recipe(config).split(", ")]
    return describe_config(config).replace(" | ", ", ").split(", ")


def _fields(content: Any, name: str = "") -> list[str]:
    """Names and values of all that is in JSON values, such as "blocks.0.padding 1"."""
    if isinstance(content, dict | list):
        items = content.items() if isinstance(content, dict) else enumerate(content)
        return [words for key, value in items for words in _fields(value, f"{name}.{key}".lstrip("."))]
    return [f"{name} {content}"]


def _architecture(architecture: Architecture) -> str:
    if isinstance(architecture, CustomNetwork):
        return " ".join([architecture.function, *(f"{k}={v}" for k, v in architecture.arguments.items())])
    if isinstance(architecture, MLP):
        first = architecture.layers[0] if architecture.layers else None
        parts = [f"mlp {_widths(architecture.layers)}".rstrip()]
        if first is not None:
            parts += [first.activation] + (["batch norm"] if first.norm == "batch" else [])
        return ", ".join(parts + _dropout([layer.dropout for layer in architecture.layers], []))
    blocks = architecture.blocks
    widths = " ".join(f"{block.width}{_pooling(block)}{'r' if block.residual else ''}" for block in blocks)
    stem = "whitened " if isinstance(architecture.stem, WhitenedStem) else ""
    kernel = blocks[0].kernel_size
    parts = [f"{stem}conv {widths}", f"{kernel}x{kernel} {_padding(blocks[0])}"]
    parts += [f"stride {blocks[0].stride}"] if blocks[0].stride > 1 else []
    parts += [blocks[0].activation] + (["batch norm"] if blocks[0].norm == "batch" else [])
    parts += _dropout([b.dropout for b in blocks], [layer.dropout for layer in architecture.head])
    if architecture.global_pooling != "none":
        parts.append(f"global {architecture.global_pooling}")
    if architecture.head:
        parts.append("linear " + _widths(architecture.head))
    if architecture.identity_initialisation:
        parts.append("identity init")
    return ", ".join(parts)


def _pooling(block: ConvBlock) -> str:
    pooling = block.pooling
    if pooling is None:
        return ""
    mark = {"max": "m", "average": "a"}[pooling.kind]
    return mark if (pooling.size, pooling.stride) == (2, 2) else f"{mark}{pooling.size}/{pooling.stride}"


def _padding(block: ConvBlock) -> str:
    if block.padding == 0:
        return "unpadded"
    return "same" if 2 * block.padding == block.kernel_size - 1 else f"padded {block.padding}"


def _dropout(body: list[float], head: list[float]) -> list[str]:
    """The rate of the dropout, and where it is if that isn't after every layer of the body."""
    rates = body + head
    if max(rates, default=0.0) == 0.0:
        return []
    if len(set(rates) - {0.0}) > 1:
        return [f"dropout {' '.join(f'{rate:.2g}' for rate in rates)}"]
    where = ""
    if min(body) == 0.0:
        where = " first" if body[0] > 0.0 else " last" if rates[-1] > 0.0 else " inside"
    return [f"dropout {max(rates):.2g}{where}"]


def _widths(layers: tuple[LinearLayer, ...]) -> str:
    return " ".join(str(layer.width) for layer in layers)


def _recipe(config: Config) -> str:
    optimizer = config.optimizer
    kind = "nesterov" if isinstance(optimizer, SGD) and optimizer.nesterov else optimizer.kind
    parts = [f"{kind} {optimizer.learning_rate:.2g}"]
    if isinstance(optimizer, Muon):
        parts[-1] += f" and nesterov {optimizer.sgd_learning_rate:.2g}"
    if isinstance(optimizer, SGD | Muon) and optimizer.momentum > 0.0:
        parts[-1] += f" momentum {optimizer.momentum:.2g}"
    if optimizer.weight_decay > 0.0:
        parts.append(f"decay {optimizer.weight_decay:.2g}")
    parts.append(config.schedule.kind.replace("_", "-"))
    if isinstance(config.schedule, OneCycle):
        parts[-1] += f" {config.schedule.warmup:.2g}"
    parts.append(f"batch {config.batch_size}")
    if config.label_smoothing > 0.0:
        parts.append(f"smoothing {config.label_smoothing:.2g}")
    if config.weight_averaging > 0.0:
        parts.append(f"averaging {config.weight_averaging:.2g}")
    augmentation = config.augmentation
    if augmentation.flip:
        parts.append("flip" if augmentation.flip is True else f"{augmentation.flip} flip")
    if augmentation.crop:
        parts.append(f"crop {augmentation.crop}")
    if augmentation.cutout:
        parts.append(f"cutout {augmentation.cutout}")
    if config.progressive_size is not None:
        parts.append(f"from {config.progressive_size} pixels")
    if config.normalisation == "symmetric":
        parts.append("pixels -1 to 1")
    if config.initialisation == "torch":
        parts.append("torch init")
    return ", ".join(parts)
