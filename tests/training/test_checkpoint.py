"""Weights on disk: they come back as they were, whole or not at all."""

import os
import resource
import threading
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from mc1opt.config import MLP, LinearLayer
from mc1opt.models.build import build_model
from mc1opt.training.checkpoint import load_weights, save_weights
from tests.training.images import SMALL_CONVNET, SMALL_MLP

PATH = Path("weights.safetensors")
ARCHITECTURES = pytest.mark.parametrize("architecture", [SMALL_MLP, SMALL_CONVNET], ids=["mlp", "convnet"])


def network(architecture=SMALL_CONVNET, seed: int = 0) -> nn.Module:
    """Every parameter and buffer has values of its own, also batch norm's statistics."""
    torch.manual_seed(seed)
    model = build_model(architecture)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.uniform_(0.5, 1.5)
    return model.eval()


def images() -> torch.Tensor:
    return torch.randint(0, 256, (4, 3, 32, 32), dtype=torch.uint8)


def same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> bool:
    return first.keys() == second.keys() and all(
        torch.equal(tensor, second[name]) for name, tensor in first.items()
    )


@ARCHITECTURES
def test_loaded_weights_give_the_same_logits(architecture):
    model, some = network(architecture), images()
    save_weights(model, PATH, {})
    loaded = network(architecture, seed=1)
    assert not torch.equal(loaded(some), model(some))
    load_weights(loaded, PATH)
    assert same(loaded.state_dict(), model.state_dict())
    assert torch.equal(loaded(some), model(some))


def test_the_file_is_plain_safetensors_with_all_parameters_and_buffers():
    model = network()
    save_weights(model, PATH, {"config": "{}", "seed": "3"})
    assert same(load_file(PATH), model.state_dict())
    with safe_open(PATH, "pt") as file:
        assert file.metadata() == {"config": "{}", "seed": "3", "memory_format": "channels_last"}


def test_loaded_filters_are_channels_last_whatever_the_network_was():
    save_weights(network(), PATH, {})
    loaded = network().to(memory_format=torch.contiguous_format)
    load_weights(loaded, PATH)
    filters = [tensor for tensor in loaded.state_dict().values() if tensor.ndim == 4]
    assert len(filters) == 3
    assert all(tensor.is_contiguous(memory_format=torch.channels_last) for tensor in filters)


def test_saving_leaves_the_network_as_it_is():
    model = network().train()
    before = {name: (tensor.clone(), tensor.stride()) for name, tensor in model.state_dict().items()}
    save_weights(model, PATH, {})
    assert model.training
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name][0])
        assert tensor.stride() == before[name][1]


def test_weights_of_another_config_are_refused():
    save_weights(network(SMALL_MLP), PATH, {})
    with pytest.raises(RuntimeError, match="size mismatch"):
        load_weights(network(MLP(layers=(LinearLayer(width=17, norm="batch"),))), PATH)
    with pytest.raises(RuntimeError, match="Missing key"):
        load_weights(network(SMALL_CONVNET), PATH)


def test_folders_are_made_and_nothing_else_is_left():
    path = Path("a/b/weights.safetensors")
    save_weights(network(), path, {})
    assert list(path.parent.iterdir()) == [path]


def test_an_old_file_is_replaced():
    for seed in range(2):
        save_weights(network(seed=seed), PATH, {"seed": str(seed)})
    assert same(load_file(PATH), network(seed=1).state_dict())
    assert list(Path().iterdir()) == [PATH]


def test_whoever_reads_meanwhile_finds_the_old_weights_or_the_new_ones():
    models = [network(SMALL_MLP, seed=seed) for seed in range(2)]
    save_weights(models[0], PATH, {})
    done = threading.Event()
    found: list[object] = []

    def read() -> None:
        while not done.is_set():
            try:
                state = load_file(PATH)
                found.append([same(state, model.state_dict()) for model in models].index(True))
            except Exception as error:
                found.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(60):
        save_weights(models[number % 2], PATH, {})
    done.set()
    reader.join()
    assert set(found) == {0, 1}


@pytest.fixture
def full_disk():
    """Files cannot grow beyond 10,000 bytes, much less than the weights of any network here."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("old", [True, False], ids=["with an old file", "without"])
def test_a_disk_that_fills_up_is_an_error_and_leaves_what_was_there(old, request):
    if old:
        save_weights(network(SMALL_MLP), PATH, {"seed": "old"})
    before = {path: path.read_bytes() for path in Path().iterdir()}
    assert len(before) == old
    request.getfixturevalue("full_disk")
    with pytest.raises(Exception, match="File too large"):  # of safetensors' own kind
        save_weights(network(SMALL_MLP, seed=1), PATH, {"seed": "new"})
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


def test_a_folder_in_the_place_of_the_file_is_an_error_and_stays():
    PATH.mkdir()
    (PATH / "kept").write_text("kept")
    with pytest.raises(OSError, match=PATH.name):
        save_weights(network(), PATH, {})
    assert list(Path().iterdir()) == [PATH]
    assert (PATH / "kept").read_text() == "kept"


def test_a_file_in_the_place_of_the_folder_is_an_error_and_stays():
    Path("file").write_text("kept")
    with pytest.raises(OSError, match="file"):
        save_weights(network(), Path("file/weights.safetensors"), {})
    assert Path("file").read_text() == "kept"


def test_a_folder_without_permission_is_an_error_and_its_old_file_stays():
    folder = Path("folder")
    save_weights(network(), folder / PATH, {})
    before = (folder / PATH).read_bytes()
    folder.chmod(0o500)
    if os.access(folder, os.W_OK):
        pytest.skip("this user may write everywhere")
    try:
        with pytest.raises(Exception, match="denied"):
            save_weights(network(seed=1), folder / PATH, {})
    finally:
        folder.chmod(0o700)
    assert (folder / PATH).read_bytes() == before
    assert list(folder.iterdir()) == [folder / PATH]
