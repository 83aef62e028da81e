"""What the exported files hold, read with the packages of their formats alone."""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open

import mc1opt
from mc1opt.config import config_from_json, config_id
from mc1opt.database.trial_files import kept_weights
from mc1opt.dataset import CIFAR10_CLASS_NAMES as CLASS_NAMES
from mc1opt.dataset import CIFAR10_SHAPE, Task
from mc1opt.errors import Mc1optError
from mc1opt.export.formats import write_onnx, write_pt2, write_safetensors
from mc1opt.inference.open_model import onnx_package
from mc1opt.training.model_folder import file_sha256
from tests.support.trained import BEST, Trained, logits_of, random_images

FOLDER = "storage/exports/s"
METADATA = {"labels": "[]", "mc1opt": mc1opt.__version__}


def described(metadata: dict[str, str], trained: Trained, folder: Path) -> None:
    """The metadata of an exported file says what it is."""
    assert json.loads(metadata["labels"]) == list(CLASS_NAMES)
    assert metadata["config_id"] == config_id(trained.config)
    assert config_from_json(json.loads(metadata["config"])) == trained.config
    kept = kept_weights(folder / "storage/checkpoints/s")[BEST]  # perhaps of another process's training
    assert metadata["weights_sha256"] == file_sha256(kept)
    assert metadata["mc1opt"] == mc1opt.__version__
    assert (metadata["study"], metadata["precision"]) == ("s", "float32")


# ---- ONNX ------------------------------------------------------------------------------------------------


def test_onnx_takes_any_number_of_uint8_images_and_gives_logits_and_probabilities(
    exported_folder: Path, trained: Trained
) -> None:
    model = onnx.load(exported_folder / FOLDER / "trial-1.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)

    def shape(value: onnx.ValueInfoProto) -> list[str | int]:
        dimensions = value.type.tensor_type.shape.dim
        return [dimension.dim_param or dimension.dim_value for dimension in dimensions]

    (images,) = model.graph.input
    assert (images.name, shape(images)) == ("images", ["batch", 3, 32, 32])
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [output.name for output in model.graph.output] == ["logits", "probabilities"]
    for output in model.graph.output:
        assert shape(output) == ["batch", 10]
        assert output.type.tensor_type.elem_type == onnx.TensorProto.FLOAT
    described({entry.key: entry.value for entry in model.metadata_props}, trained, exported_folder)


def test_onnx_keeps_its_weights_inside_and_this_machine_out(exported_folder: Path) -> None:
    path = exported_folder / FOLDER / "trial-1.onnx"
    model = onnx.load(path, load_external_data=False)
    assert {tensor.data_location for tensor in model.graph.initializer} == {onnx.TensorProto.DEFAULT}
    assert not list(path.parent.glob("*.data"))
    assert str(Path(mc1opt.__file__).parent).encode() not in path.read_bytes()


def test_in_half_the_weights_of_onnx_are_float16(trained: Trained) -> None:
    write_onnx(Path("half.onnx"), trained.weights, trained.config, Task(), METADATA, half=True)
    kinds = {t.name: t.data_type for t in onnx.load("half.onnx").graph.initializer if len(t.dims) == 4}
    assert set(kinds.values()) >= {onnx.TensorProto.FLOAT16}
    convolutions = [kind for name, kind in kinds.items() if "convolution" in name]
    assert convolutions
    assert set(convolutions) == {onnx.TensorProto.FLOAT16}


@pytest.mark.parametrize("package", ["onnx", "onnxscript"])
def test_a_missing_package_is_named_with_what_to_install(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, package: str
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(Mc1optError, match=rf"{package}.*mc1opt\[export\]"):
        write_onnx(Path("x.onnx"), trained.weights, trained.config, Task(), METADATA, half=False)
    assert not Path("x.onnx").exists()
    with pytest.raises(Mc1optError, match=package):
        onnx_package(package)


# ---- pt2 -------------------------------------------------------------------------------------------------


def test_a_pt2_file_runs_without_mc1opt_and_says_what_it_is(exported_folder: Path, trained: Trained) -> None:
    metadata = dict.fromkeys(
        ("labels", "config", "config_id", "weights_sha256", "mc1opt", "study", "precision"), ""
    )
    program = torch.export.load(exported_folder / FOLDER / "trial-1.pt2", extra_files=metadata)
    described(metadata, trained, exported_folder)
    for count in (1, 2, 65):
        logits, probabilities = program.module()(random_images(count))
        assert logits.shape == (count, 10)
        torch.testing.assert_close(probabilities, logits.softmax(1))


def test_a_pt2_file_keeps_this_machine_out(exported_folder: Path) -> None:
    with zipfile.ZipFile(exported_folder / FOLDER / "trial-1.pt2") as archive:
        for name in archive.namelist():
            assert str(Path(mc1opt.__file__).parent).encode() not in archive.read(name)


def test_in_half_the_weights_of_pt2_are_float16(trained: Trained) -> None:
    write_pt2(Path("half.pt2"), trained.weights, trained.config, Task(), METADATA, half=True)
    state = torch.export.load("half.pt2").state_dict
    halves = {name for name, tensor in state.items() if tensor.dtype == torch.float16}
    floats = {name for name, tensor in state.items() if tensor.dtype == torch.float32}
    assert halves >= {"layers.blocks.0.convolution.weight", "layers.classifier.weight"}
    assert floats == {"normalisation.mean", "normalisation.std"}


# ---- safetensors -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("half", [False, True])
def test_safetensors_hold_the_weights_and_the_config(trained: Trained, half: bool) -> None:
    path = Path("x.safetensors")
    write_safetensors(path, trained.weights, trained.config, Task(), METADATA, half=half)
    with safe_open(path, "torch") as written, safe_open(trained.weights, "torch") as original:
        assert set(written.keys()) == set(original.keys())
        assert written.metadata()["mc1opt"] == mc1opt.__version__
        for name in written.keys():  # noqa: SIM118  (not a dictionary)
            expected = original.get_tensor(name)
            if half and expected.is_floating_point() and not name.startswith("normalisation"):
                expected = expected.half()
            torch.testing.assert_close(written.get_tensor(name), expected, rtol=0, atol=0)


def test_exported_weights_load_into_the_network_of_their_config(
    exported_folder: Path, trained: Trained
) -> None:
    from mc1opt.training.model_folder import weights_model

    images = random_images(5)
    path = exported_folder / FOLDER / "trial-1.safetensors"
    np.testing.assert_array_equal(
        logits_of(weights_model(path, trained.config, CIFAR10_SHAPE), images),
        logits_of(weights_model(trained.weights, trained.config, CIFAR10_SHAPE), images),
    )
