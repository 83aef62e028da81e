"""From the options of the command line to a pool."""

import os
import signal

import pytest
import torch

from mc1opt.errors import UsageError
from mc1opt.machine import resources
from mc1opt.machine.devices import visible_gpus
from mc1opt.machine.resources import GPU_WORKERS, default_workers
from mc1opt.workers import engine as engine_module
from mc1opt.workers.engine import Engine
from tests.support.curves import TRAINER, example_training


def test_workers_are_a_number_or_as_many_as_the_machine_has_room_for() -> None:
    assert Engine("3").count("cpu") == 3
    assert Engine("256").count("cuda") == 256
    assert Engine("auto").count("cpu") == default_workers(device="cpu")


def test_on_mps_one_worker_trains() -> None:
    assert Engine("auto").count("mps") == Engine("1").count("mps") == 1
    with pytest.raises(UsageError, match=r"--workers 2.* 1 "):
        Engine("2").count("mps")


@pytest.mark.parametrize("text", ["0", "-1", "257", "two", "1.5", "", "1e2", "²"])
def test_other_workers_are_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(UsageError, match="1 to 256"):
        Engine(text).count("cpu")


@pytest.fixture
def three_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which torch finds three GPUs, and 64 CPUs."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 3)
    monkeypatch.setattr(resources, "available_cpus", lambda: 64)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(
    ("engine", "workers"),
    [
        (Engine(device="cuda"), 3 * GPU_WORKERS),
        (Engine(device="cuda:1"), GPU_WORKERS),
        (Engine(device="cuda", gpus=0.5), 6),
        (Engine(device="cuda:2", gpus=1.0), 1),
        (Engine("7", "cuda", cpus=32), 7),
        (Engine(device="cuda", cpus=32), 2),
    ],
)
def test_workers_share_the_gpus_that_are_asked_for(engine: Engine, workers: int) -> None:
    assert engine.find_device() == "cuda"
    assert engine.count("cuda") == workers


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize(("device", "gpus"), [("cuda", ["0", "0", "1", "1", "2"]), ("cuda:1", ["1"] * 5)])
def test_each_gpu_gets_as_many_workers_also_in_place_of_those_that_died(device: str, gpus: list[str]) -> None:
    with Engine(device=device).pool(5, "cuda", trainer=TRAINER) as pool:
        before = sorted(str(slot.result().gpu) for slot in pool._free)
        os.kill(pool._free[-1].result().pid, signal.SIGKILL)
        assert pool.train(example_training(), lambda _: True)
        after = sorted(str(slot.result().gpu) for slot in pool._free)
    assert before == after == gpus


def test_where_no_gpu_trains_torch_is_not_asked_for_any(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        engine_module, "visible_gpus", lambda: pytest.fail("imports torch, which takes seconds")
    )
    assert Engine(device="cpu").find_device() == "cpu"


def test_a_worker_of_several_cpus_has_as_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources, "available_cpus", lambda: 7)
    assert Engine(cpus=2).count("cpu") == 3
    assert Engine(cpus=16).count("cpu") == 1


@pytest.mark.parametrize(
    ("engine", "text"),
    [
        (Engine(cpus=0), "--worker-cpus 0"),
        (Engine(gpus=0.0), "--worker-gpus 0"),
        (Engine(gpus=2.0), "--worker-gpus 2"),
        (Engine(device="cpu", gpus=0.5), r"--worker-gpus 0\.5"),
        (Engine(device="cuda:x"), "--device cuda"),
        (Engine(device="tpu"), "'tpu'"),
        (Engine("none"), "'none'"),
    ],
)
def test_a_wrong_option_is_named(engine: Engine, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        engine.find_device()


@pytest.mark.usefixtures("three_gpus")
@pytest.mark.parametrize("device", ["cuda:3", "cuda:x"])
def test_a_gpu_that_is_not_there_is_an_error(device: str) -> None:
    with pytest.raises(UsageError, match=f"{device}: .* 3 "):
        Engine(device=device).find_device()


@pytest.mark.parametrize(
    ("visible", "gpus"), [("2,5", ("2", "5")), ("GPU-a, GPU-b", ("GPU-a", "GPU-b")), ("", ("0", "1"))]
)
def test_gpus_are_named_as_cuda_names_them(
    visible: str, gpus: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert visible_gpus() == gpus
