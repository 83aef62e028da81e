"""Weights and checkpoints on disk: they come back as they were, whole or not at all."""

import json
import logging
import resource
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from mc1opt.config import MLP, SGD, Adam, LinearLayer, Muon
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.machine import devices
from mc1opt.models.build import build_model
from mc1opt.models.custom import CUSTOM
from mc1opt.spec import EpochResult, Fidelity, Fold, Training
from mc1opt.training import checkpoint as checkpoint_module
from mc1opt.training.checkpoint import (
    Checkpoint,
    CheckpointError,
    CheckpointWriter,
    load_checkpoint,
    load_weights,
    save_checkpoint,
    save_weights,
    set_state,
    state_of,
)
from mc1opt.training.optim import build_optimizer, optimizer_state_keys
from mc1opt.training.tensor_file import CHECKSUM, read_tensors, write_tensors
from tests.support.images import SMALL_CONVNET, SMALL_MLP, small_training

PATH = Path("weights.safetensors")
ARCHITECTURES = pytest.mark.parametrize("architecture", [SMALL_MLP, SMALL_CONVNET], ids=["mlp", "convnet"])


def network(architecture=SMALL_CONVNET, seed: int = 0) -> nn.Module:
    """Every parameter and buffer has values of its own, also batch norm's statistics."""
    torch.manual_seed(seed)
    model = build_model(architecture, CIFAR10_SHAPE)
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
    for tensor in loaded.state_dict().values():
        assert tensor.ndim < 4 or tensor.is_contiguous(memory_format=torch.channels_last)


def test_the_file_is_plain_safetensors_with_all_parameters_and_buffers():
    model = network()
    save_weights(model, PATH, {"config": "{}", "seed": "3"})
    assert same(load_file(PATH), model.state_dict())
    with safe_open(PATH, "pt") as file:
        metadata = file.metadata()
    assert len(metadata.pop(CHECKSUM)) == 64
    assert metadata == {"config": "{}", "seed": "3", "memory_format": "channels_last"}


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
    with pytest.raises(OSError, match="File too large"):
        save_weights(network(SMALL_MLP, seed=1), PATH, {"seed": "new"})
    assert {path: path.read_bytes() for path in Path().iterdir()} == before


# ---- State of a network and its optimizer ----------------------------------------------------------------

MUON = Muon(learning_rate=0.1, sgd_learning_rate=0.1)
OPTIMIZERS = pytest.mark.parametrize(
    "config",
    [
        SGD(learning_rate=0.1, momentum=0.9, nesterov=True),
        SGD(learning_rate=0.1),
        Adam(learning_rate=0.1),
        MUON,
    ],
    ids=["momentum", "plain sgd", "adam", "muon"],
)


def trained(config: SGD | Adam | Muon, seed: int = 0) -> tuple[nn.Module, torch.optim.Optimizer]:
    """A network after two steps, its filters in channels_last."""
    model = network(seed=seed).to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(model, config)
    for _ in range(2):
        optimizer.zero_grad()
        model(images()).sum().backward()
        optimizer.step()
    return model, optimizer


@OPTIMIZERS
def test_a_state_makes_another_network_and_its_optimizer_the_same(config):
    model, optimizer = trained(config)
    state = {name: tensor.contiguous().clone() for name, tensor in state_of(model, optimizer).items()}
    other, other_optimizer = trained(config, seed=1)
    keys = optimizer_state_keys(config)
    set_state(other, other_optimizer, keys, state)
    assert same(state_of(other, other_optimizer), state)
    fresh = network(seed=1).to(memory_format=torch.channels_last)
    fresh_optimizer = build_optimizer(fresh, config)
    set_state(fresh, fresh_optimizer, keys, state)
    assert same(state_of(fresh, fresh_optimizer), state)
    for name, parameter in fresh.named_parameters():
        stored = fresh_optimizer.state.get(parameter, {})
        assert all(value.stride() == parameter.stride() for key, value in stored.items() if key != "step"), (
            name
        )


class Custom(nn.Module):
    """A custom network in the memory format of PyTorch's default, with a layer that it does not use."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(3, 3)
        self.used = nn.Conv2d(3, 4, 3)
        self.classifier = nn.Linear(4, 10)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.classifier(self.used(images.float()).mean((2, 3)))


@OPTIMIZERS
def test_what_a_custom_network_does_not_use_has_no_state_and_needs_none(config):
    states = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        model = nn.ModuleDict({CUSTOM: Custom()})
        optimizer = build_optimizer(model, config)
        if seed == 0:
            torch.autograd.backward(model[CUSTOM](images()).sum())
            optimizer.step()
            states.append({name: tensor.clone() for name, tensor in state_of(model, optimizer).items()})
        else:
            set_state(model, optimizer, optimizer_state_keys(config), states[0])
            states.append(state_of(model, optimizer))
    assert same(*states)
    assert not any(name.startswith("optimizer.") and "unused" in name for name in states[0])


@OPTIMIZERS
def test_a_state_is_copied_and_not_shared(config):
    model, optimizer = trained(config)
    state = {name: tensor.clone() for name, tensor in state_of(model, optimizer).items()}
    before = {name: tensor.clone() for name, tensor in state.items()}
    set_state(model, optimizer, optimizer_state_keys(config), state)
    model.train()(images()).sum().backward()
    optimizer.step()
    assert all(torch.equal(tensor, before[name]) for name, tensor in state.items() if ".step." not in name)


@pytest.mark.parametrize("what", ["missing", "more", "shape", "type"])
def test_a_state_of_another_network_is_refused_and_changes_nothing(what):
    config = SGD(learning_rate=0.1, momentum=0.9)
    model, optimizer = trained(config)
    before = {name: tensor.clone() for name, tensor in state_of(model, optimizer).items()}
    state = {name: tensor + 1 for name, tensor in before.items()}
    name = "optimizer.momentum_buffer.classifier.weight"
    if what == "missing":
        del state[name]
    elif what == "more":
        state["model.more.weight"] = torch.zeros(1)
        name = "model.more.weight"
    else:
        state[name] = state[name].t() if what == "shape" else state[name].double()
    with pytest.raises(ValueError, match=name):
        set_state(model, optimizer, optimizer_state_keys(config), state)
    assert same(state_of(model, optimizer), before)


# ---- Checkpoints -----------------------------------------------------------------------------------------

RESULTS = tuple(
    EpochResult(epoch=epoch, loss=0.1 + 0.2 * epoch, validation_accuracy=1 / 3, seconds=1e-9)
    for epoch in range(2)
)


def a_training(data, **changes) -> Training:
    return small_training(data, epochs=4, **({"checkpoint": str(PATH.absolute())} | changes))


def a_checkpoint(value: float = 1.0) -> Checkpoint:
    return Checkpoint({"model.a": torch.full((20,), value)}, RESULTS)


def test_a_checkpoint_comes_back_bit_for_bit(data):
    save_checkpoint(PATH, a_training(data), a_checkpoint())
    loaded = load_checkpoint(PATH, a_training(data))
    assert same(loaded.state, a_checkpoint().state)
    assert loaded.results == RESULTS


def test_without_a_file_there_is_no_checkpoint(data):
    assert load_checkpoint(PATH, a_training(data)) is None


def test_where_images_and_files_lie_does_not_matter(data):
    save_checkpoint(PATH, a_training(data), a_checkpoint())
    moved = data.model_copy(update={"folder": "/elsewhere", "name": "other"})
    again = a_training(moved, weights="w.safetensors", checkpoint="x", checkpoint_seconds=3.0)
    assert load_checkpoint(PATH, again) is not None


@pytest.mark.parametrize(
    ("what", "changes"),
    [
        ("config", {"batch_size": 65}),
        ("seed", {"seed": 2}),
        ("fidelity", {"fidelity": Fidelity(train_images=300, epochs=5)}),
        ("device", {"device": "cuda"}),
        ("threads", {"threads": 2}),
        ("precision", {"precision": "bfloat16"}),
        ("fold", {"fold": Fold(index=0, count=4)}),
        ("data", {"sha256": "1" * 64}),
        ("data", {"train_images": 350}),
        ("data", {"validation_images": 350}),
    ],
)
def test_the_checkpoint_of_another_training_is_refused_with_what_differs(data, what, changes):
    save_checkpoint(PATH, a_training(data), a_checkpoint())
    of_data = what == "data"
    other = a_training(data.model_copy(update=changes)) if of_data else a_training(data, **changes)
    # With bfloat16 the CPU is named by what computes it.
    with pytest.raises(CheckpointError, match=f"another (cpu, )?{what}$"):
        load_checkpoint(PATH, other)


def test_in_bfloat16_another_cpu_is_another_training(data, monkeypatch):
    """Its kernels differ, and so do the last bits, where torch calls both AVX512."""
    changes = {
        "float32": {},
        "bfloat16": {"precision": "bfloat16"},
        "muon": {"optimizer": MUON},  # computes its steps in it
    }
    found = dict.fromkeys(changes)
    for kind, change in changes.items():
        monkeypatch.setattr(devices, "cpu_flags", lambda: frozenset({"avx512f", "avx512_bf16"}))
        training = a_training(data, **change)
        save_checkpoint(PATH, training, a_checkpoint())
        monkeypatch.setattr(devices, "cpu_flags", lambda: frozenset({"avx512f", "avx512_bf16", "amx_bf16"}))
        try:
            load_checkpoint(PATH, training)
        except CheckpointError as error:
            found[kind] = str(error)
    assert found["float32"] is None
    assert found["bfloat16"].endswith(" cpu")
    assert found["muon"].endswith(" cpu")


@pytest.mark.parametrize("what", ["mc1opt", "torch", "cpu", "format"])
def test_the_checkpoint_of_another_version_or_cpu_is_refused(data, what):
    save_checkpoint(PATH, a_training(data), a_checkpoint())
    file = read_tensors(PATH)
    identity = json.loads(file.metadata["training"])
    assert identity[what]
    identity[what] = "other"
    write_tensors(PATH, file.tensors, {**file.metadata, "training": json.dumps(identity)})
    with pytest.raises(CheckpointError, match=f"with another {what}$"):
        load_checkpoint(PATH, a_training(data))


@pytest.mark.parametrize("metadata", [{}, {"training": "no JSON"}, {"training": "[]"}])
def test_tensors_that_say_nothing_of_a_training_are_refused(data, metadata):
    write_tensors(PATH, a_checkpoint().state, metadata)
    with pytest.raises(CheckpointError, match="which training"):
        load_checkpoint(PATH, a_training(data))


@pytest.mark.parametrize(
    "results",
    [(), RESULTS[1:], (*RESULTS, RESULTS[1]), RESULTS[:1] * 2],
    ids=["none", "late", "twice", "same"],
)
def test_results_that_are_not_of_the_first_epochs_are_refused(data, results):
    save_checkpoint(PATH, a_training(data), Checkpoint(a_checkpoint().state, results))
    with pytest.raises(CheckpointError, match="results"):
        load_checkpoint(PATH, a_training(data))


def change_a_bit() -> None:
    content = bytearray(PATH.read_bytes())
    content[-1] ^= 1
    PATH.write_bytes(content)


def put_a_folder() -> None:
    PATH.unlink()
    PATH.mkdir()


@pytest.mark.parametrize(
    ("damage", "message"), [(change_a_bit, "checksum"), (put_a_folder, "Is a directory")]
)
def test_a_file_that_cannot_be_used_is_refused(data, damage, message):
    save_checkpoint(PATH, a_training(data), a_checkpoint())
    damage()
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(PATH, a_training(data))


# ---- When checkpoints are written ------------------------------------------------------------------------


class Clock:
    """Stands in for the module `time`."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(checkpoint_module, "time", clock)
    return clock


class InProgress:
    """A training whose state is a number: that of its last epoch, or something in between."""

    def __init__(self, training: Training) -> None:
        self.training = training
        self.tensor = torch.zeros(3)
        self.writer = CheckpointWriter(training, lambda: {"model.a": self.tensor})
        self.results: list[EpochResult] = []

    def train(self, value: float) -> None:
        self.tensor.fill_(value)
        self.results.append(RESULTS[0].model_copy(update={"epoch": len(self.results)}))
        self.writer.epoch_ended(self.results)

    def stored(self) -> tuple[float, int] | None:
        """The stored state, and of how many epochs."""
        found = load_checkpoint(Path(self.training.checkpoint), self.training)
        return None if found is None else (found.state["model.a"][0].item(), len(found.results))


def test_checkpoints_are_written_at_ends_of_epochs_and_at_most_every_so_many_seconds(data, clock):
    mine = InProgress(a_training(data, checkpoint_seconds=10.0))
    stored = []
    for epoch, seconds in enumerate((9.0, 1.5, 9.5, 0.4)):
        clock.now += seconds
        mine.train(float(epoch))
        stored.append(mine.stored())
    assert stored == [None, (1.0, 2), (1.0, 2), (1.0, 2)]


def test_an_interruption_writes_the_state_at_the_last_epochs_end_whatever_was_trained_since(data, clock):
    mine = InProgress(a_training(data))
    mine.train(1.0)
    mine.tensor.fill_(99.0)  # the next epoch has begun
    mine.writer.write()
    assert mine.stored() == (1.0, 1)
    before = PATH.stat().st_ino
    mine.writer.write()  # nothing that is on disk already
    assert PATH.stat().st_ino == before


def test_before_the_first_epochs_end_or_without_a_place_nothing_is_written(data, clock):
    InProgress(a_training(data)).writer.write()
    mine = InProgress(a_training(data, checkpoint=None, checkpoint_seconds=0.0))
    mine.train(1.0)
    mine.writer.write()
    assert list(Path().iterdir()) == []


def test_a_full_disk_is_one_warning_the_old_checkpoint_stays_and_later_ones_are_tried(
    data, clock, request, caplog
):
    mine = InProgress(a_training(data, checkpoint_seconds=0.0))
    mine.train(1.0)
    small = mine.tensor
    mine.tensor = torch.zeros(20_000)
    request.getfixturevalue("full_disk")
    with caplog.at_level(logging.WARNING):
        mine.train(2.0)
        mine.train(3.0)
    (record,) = caplog.records
    assert record.args == (PATH.absolute(), "File too large")
    assert mine.stored() == (1.0, 1)
    assert list(Path().iterdir()) == [PATH]
    mine.tensor = small
    mine.train(4.0)
    assert mine.stored() == (4.0, 4)
