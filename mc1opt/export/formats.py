"""Writes a model as ONNX, as a program of `torch.export`, or as safetensors: one file each.

Input: images (uint8, N x C x H x W, RGB or grey, any N); normalisation is in the graph. Outputs: logits and
probabilities. Not here: which model (`mc1opt.export.export`), and whether the file is the same model
(`mc1opt.export.parity`).
"""

import contextlib
import io
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from mc1opt.config import Config
from mc1opt.dataset import Task
from mc1opt.inference.open_model import INPUT, OUTPUTS, onnx_package
from mc1opt.training.model_folder import weights_model

if TYPE_CHECKING:
    import torch

BATCH = "batch"
"""Name of the dimension of free size."""


def write_onnx(
    path: Path, weights: Path, config: Config, task: Task, metadata: dict[str, str], *, half: bool
) -> None:
    """An ONNX file with `metadata`; if `half`, weights and layers are float16.

    Raises:
        Mc1optError: a package is missing.
    """
    onnx = onnx_package("onnx")
    onnx_package("onnxscript")
    import torch

    with _known_warnings():
        program = torch.onnx.export(
            _inference(weights, config, task, half=half),
            (_sample(task),),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes={INPUT: {0: torch.export.Dim(BATCH, min=1)}},
            external_data=False,
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    # The exporter's notes on nodes and values hold stack traces, with the paths of this machine.
    graph = model.graph
    for part in (*graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    onnx.helper.set_model_props(model, metadata)
    model.producer_name = "mc1opt"
    model.producer_version = metadata["mc1opt"]
    path.write_bytes(model.SerializeToString(deterministic=True))


def write_pt2(
    path: Path, weights: Path, config: Config, task: Task, metadata: dict[str, str], *, half: bool
) -> None:
    """A program of `torch.export`, without code of mc1opt; `metadata` become its extra files."""
    import torch

    with torch.no_grad():
        program = torch.export.export(
            _inference(weights, config, task, half=half),
            (_sample(task),),
            dynamic_shapes={INPUT: {0: torch.export.Dim(BATCH, min=1)}},
        )
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)  # the paths of this machine
    content = io.BytesIO()
    with _known_warnings():
        torch.export.save(program, content, extra_files=dict(metadata))
    path.write_bytes(content.getvalue())


def write_safetensors(
    path: Path, weights: Path, config: Config, task: Task, metadata: dict[str, str], *, half: bool
) -> None:
    """Weights and, in the file's header, the config as JSON: what `build_model` needs to build the network.

    If `half`, all weights but those of the normalisation are float16.
    """
    from safetensors.torch import save

    model = weights_model(weights, config, task.shape)
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    for name, tensor in tensors.items():
        if half and tensor.is_floating_point() and not name.startswith("normalisation."):
            tensors[name] = tensor.half()
    # `save_file` would make the file readable for its owner alone.
    path.write_bytes(save(tensors, metadata={**metadata, "memory_format": "channels_last"}))


def _inference(weights: Path, config: Config, task: Task, *, half: bool) -> "torch.nn.Module":
    from mc1opt.models.exported import Inference

    return Inference(weights_model(weights, config, task.shape), half=half)


def _sample(task: Task) -> "torch.Tensor":
    """Two images: from one, the exporter would infer that the batch size is always 1."""
    import torch

    return torch.zeros(2, *task.image_shape, dtype=torch.uint8)


@contextlib.contextmanager
def _known_warnings() -> Iterator[None]:
    """Silences torch's warnings about weights in channels_last order; `check` proves the file right."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", message="No complete tensor found in the group", category=UserWarning
        )
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        warnings.filterwarnings("ignore", category=FutureWarning)
        yield
