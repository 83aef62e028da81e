"""Models opened by their own runtimes; and the files that are not opened."""

import errno
import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import external_data_helper
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.errors import ModelError
from mc1opt.inference.open_model import open_model, open_pt2
from mc1opt.training.model_folder import weights_model
from tests.support.trained import Trained, logits_of, random_images, write_model
from tests.training.test_model_folder import Trap

RECORD = Path("storage/exports/exports.jsonl")
EXPORTS = Path("storage/exports/s")


@pytest.mark.parametrize("name", ["trial-1.onnx", "trial-1.pt2", "trial-1.safetensors", "models/m"])
def test_every_format_gives_the_logits_of_the_trained_network(
    exported: Path, trained: Trained, name: str
) -> None:
    write_model(EXPORTS / "models/m", trained)
    opened = open_model(EXPORTS / name, RECORD)
    assert opened.study == "s"
    network = weights_model(trained.weights, trained.config, CIFAR10_SHAPE)
    for count in (1, 3, 64):
        images = random_images(count)
        logits, probabilities = opened.run(images.numpy())
        np.testing.assert_allclose(logits, logits_of(network, images), atol=1e-4)
        np.testing.assert_allclose(probabilities.sum(1), 1.0, rtol=1e-5)


# ---- Nothing is executed ---------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["", ".pt", ".pth", ".pkl", ".onnx", ".safetensors", ".pt2"])
def test_a_pickle_is_not_executed_whatever_it_is_called(ending: str) -> None:
    path = Path(f"model{ending}")
    path.write_bytes(pickle.dumps(Trap()))
    with pytest.raises(ModelError, match=str(path)):
        open_model(path, RECORD)
    assert not Path("executed").exists()


def test_a_pt2_file_that_was_not_exported_here_is_not_opened(exported: Path) -> None:
    path = EXPORTS / "trial-1.pt2"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ModelError, match=r"not in the record .*storage/exports/exports\.jsonl"):
        open_model(path, RECORD)


@pytest.mark.parametrize("record", ["", "of another format"])
def test_without_its_line_in_the_record_no_pt2_file_is_opened(exported: Path, record: str) -> None:
    RECORD.write_text(RECORD.read_text().replace('"pt2"', '"onnx"') if record else "")
    with pytest.raises(ModelError, match="not in the record"):
        open_model(EXPORTS / "trial-1.pt2", RECORD)


# ---- ONNX that is not ours -------------------------------------------------------------------------------


def change_onnx(change: Callable[[onnx.ModelProto], object]) -> Path:
    """A changed copy of the exported file."""
    model = onnx.load(EXPORTS / "trial-1.onnx")
    change(model)
    path = Path("changed.onnx")
    path.write_bytes(model.SerializeToString())
    return path


def set_labels(*labels: str) -> Callable[[onnx.ModelProto], None]:
    return lambda model: onnx.helper.set_model_props(model, {"labels": json.dumps(labels)})


@pytest.mark.parametrize("location", ["../outside.bin", "/etc/hostname", "weights.bin"])
def test_onnx_whose_weights_are_in_another_file_is_refused(exported: Path, location: str) -> None:
    def move_out(model: onnx.ModelProto) -> None:
        tensor = model.graph.initializer[0]
        tensor.raw_data = b""
        external_data_helper.set_external_data(tensor, location)

    with pytest.raises(ModelError, match=rf"another file \({location}\)"):
        open_model(change_onnx(move_out), RECORD)


def test_external_data_is_found_wherever_it_hides(exported: Path) -> None:
    def hide(model: onnx.ModelProto) -> None:
        tensor = onnx.TensorProto(name="t", dims=[1], data_type=onnx.TensorProto.FLOAT, raw_data=b"0123")
        external_data_helper.set_external_data(tensor, "../outside.bin")
        constant = onnx.helper.make_node("Constant", [], ["c"], value=tensor)
        inner = onnx.helper.make_graph([constant], "inner", [], [])
        branch = onnx.helper.make_node("If", ["x"], ["y"], then_branch=inner, else_branch=inner)
        model.graph.node.append(branch)

    with pytest.raises(ModelError, match="another file"):
        open_model(change_onnx(hide), RECORD)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_labels("cat", "dog"), "its outputs are"),
        (lambda model: model.ClearField("metadata_props"), "no class names"),
        (lambda model: model.graph.ClearField("node"), "cannot be run by onnxruntime"),
        (lambda model: model.graph.output.pop(), "its outputs are"),
    ],
    ids=["labels", "no labels", "no nodes", "no probabilities"],
)
def test_onnx_that_is_not_ours_is_refused(
    exported: Path, change: Callable[[onnx.ModelProto], object], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        open_model(change_onnx(change), RECORD)


def test_onnx_with_other_inputs_is_refused() -> None:
    images = onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["batch", 3, 224, 224])
    outputs = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", 3, 224, 224])
        for name in ("logits", "probabilities")
    ]
    nodes = [onnx.helper.make_node("Identity", ["images"], [output.name]) for output in outputs]
    graph = onnx.helper.make_graph(nodes, "other", [images], outputs)
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    onnx.helper.set_model_props(model, {"labels": json.dumps(classes)})
    Path("other.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(ModelError, match="its inputs are"):
        open_model(Path("other.onnx"), RECORD)


# ---- Missing or damaged ----------------------------------------------------------------------------------


def fix_batch(size: int) -> Callable[[onnx.ModelProto], object]:
    def change(model: onnx.ModelProto) -> None:
        for value in (*model.graph.input, *model.graph.output):
            value.type.tensor_type.shape.dim[0].dim_value = size

    return change


@pytest.mark.parametrize("size", [1, 2])
def test_onnx_with_a_fixed_batch_size_is_refused(exported: Path, size: int) -> None:
    with pytest.raises(ModelError, match=rf"cannot be run on {3 - size} image"):
        open_model(change_onnx(fix_batch(size)), RECORD)


def test_onnx_whose_weights_are_not_finite_is_refused(exported: Path) -> None:
    def break_weights(model: onnx.ModelProto) -> None:
        for tensor in model.graph.initializer:
            if len(tensor.dims) > 1 and tensor.data_type == onnx.TensorProto.FLOAT:
                array = np.full(tuple(tensor.dims), np.nan, dtype=np.float32)
                tensor.CopyFrom(onnx.numpy_helper.from_array(array, tensor.name))

    with pytest.raises(ModelError, match="not finite"):
        open_model(change_onnx(break_weights), RECORD)


def test_a_changed_config_in_safetensors_is_refused(exported: Path) -> None:
    path = EXPORTS / "trial-1.safetensors"
    with safe_open(path, framework="numpy") as file:
        metadata = dict(file.metadata())
    tensors = load_file(path)
    for change, message in (
        (metadata["config"].replace('"batch_size": 64', '"batch_size": 65'), "was changed"),
        ("[]", "holds no config"),
        ("[" * 100_000, "holds no config"),
    ):
        save_file(tensors, path, metadata={**metadata, "config": change})
        with pytest.raises(ModelError, match=message):
            open_model(path, RECORD)


def test_an_ending_in_capitals_is_the_same_format(exported: Path) -> None:
    path = (EXPORTS / "trial-1.onnx").rename("TRIAL-1.ONNX")
    assert open_model(path, RECORD).format == "onnx"


def test_a_pt2_file_that_torch_cannot_read_is_refused_with_torchs_version() -> None:
    Path("broken.pt2").write_bytes(b"no archive")
    known = {hashlib.sha256(b"no archive").hexdigest()}
    with pytest.raises(ModelError, match=rf"broken\.pt2 .*torch {torch.__version__[:4]}"):
        open_pt2(Path("broken.pt2"), known=known)


@pytest.mark.parametrize("name", ["trial-1.onnx", "trial-1.pt2", "trial-1.safetensors"])
def test_an_exported_file_says_what_it_was_trained_on(exported: Path, trained: Trained, name: str) -> None:
    data = {"name": trained.data.name, "sha256": trained.data.sha256}
    assert open_model(EXPORTS / name, RECORD).data == data


@pytest.mark.parametrize("name", ["trial-1.onnx", "trial-1.safetensors"])
def test_a_truncated_file_is_refused(exported: Path, name: str) -> None:
    path = EXPORTS / name
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ModelError, match=name):
        open_model(path, RECORD)


def test_safetensors_of_others_are_refused() -> None:
    save_file({"weight": np.zeros(3)}, "other.safetensors")
    with pytest.raises(ModelError, match=r"other\.safetensors"):
        open_model(Path("other.safetensors"), RECORD)


def test_of_weights_alone_it_is_said_what_makes_a_model_of_them(trained: Trained) -> None:
    with pytest.raises(ModelError, match="export --study NAME --trial NUMBER"):
        open_model(trained.weights, RECORD)
    model = write_model(Path("storage/models/s"), trained)
    with pytest.raises(ModelError, match="the folder, storage/models/s"):
        open_model(model / "model.safetensors", RECORD)


@pytest.mark.parametrize("ending", ["onnx", "pt2", "safetensors"])
def test_a_file_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch, ending: str) -> None:
    """The superuser may read everything: so the answer of the system is another one here."""
    path = Path(f"m.{ending}")
    path.touch()

    read = Path.read_bytes

    def refused(asked: Path) -> bytes:
        if asked == path:
            raise PermissionError(errno.EACCES, "Permission denied")
        return read(asked)

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(ModelError, match=rf"m\.{ending} .*Permission denied"):
        open_model(path, RECORD)


def test_a_model_that_does_not_exist_is_named() -> None:
    with pytest.raises(ModelError, match=r"none\.onnx"):
        open_model(Path("none.onnx"), RECORD)
