"""What an actor does with its worker, without a cluster: above all on another machine than the driver's."""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mc1opt.dataset import DataSet
from mc1opt.spec import Training
from mc1opt.training.tensor_file import read_tensors
from mc1opt.workers.pool import ProcessPool
from mc1opt.workers.protocol import (
    Command,
    Continue,
    EpochDone,
    Failed,
    Finished,
    Message,
    Ready,
    Stop,
    Train,
    decode_message,
    encode,
)
from mc1opt.workers.relay import TRAINING_FILES, Host, Relay, this_host
from tests.support.curves import TRAINER, Switches, curve, example_training
from tests.support.images import small_training, write_images

SECONDS = 60.0
FAR = Host("elsewhere", "another boot")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what a worker needs on its machine, empty at first."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    return tmp_path / "temporary"


@pytest.fixture
def images(tmp_path: Path) -> DataSet:
    """Images of the driver's machine."""
    (tmp_path / "images").mkdir()
    return write_images(tmp_path / "images")


@pytest.fixture
def far(here: Path) -> Iterator[Relay]:
    """A relay whose driver is on another machine; its worker trains for real."""
    relay = Relay("mc1opt.training.loop:train", 1, shared=False, driver=FAR)
    yield relay
    relay.close()


def said(relay: Relay, command: Command | None, *files: Any) -> tuple[Message, bytes | None]:
    """What a relay answers to a command, and the weights that come with it."""
    answer = relay.exchange(command and encode(command), SECONDS, *files)
    assert answer.line is not None
    return decode_message(answer.line), answer.weights


def files(data: DataSet) -> list[Any]:
    """Names and contents of what a training reads."""
    paths = sorted(Path(data.folder).glob(TRAINING_FILES))
    return [[path.name for path in paths], *(np.fromfile(path, np.uint8) for path in paths)]


def elsewhere(training: Training) -> Training:
    """The training with paths that no machine has."""
    data = training.data.model_copy(update={"folder": "/nowhere/images"})
    return training.model_copy(
        update={"data": data, "weights": "/nowhere/1.safetensors", "checkpoint": "/nowhere/1.checkpoint"}
    )


def test_a_worker_far_away_trains_on_images_that_came_and_sends_its_weights(
    images: DataSet, far: Relay, here: Path
) -> None:
    training = small_training(images, weights=str(Path("local.safetensors").absolute()))
    with ProcessPool(1) as pool:
        results: list[Any] = []
        pool.train(training, lambda result: results.append(result) is None)
    assert said(far, None) == (Ready(), None)
    received = [said(far, Train(training=elsewhere(training)), *files(images))]
    while isinstance(received[-1][0], EpochDone):
        received.append(said(far, Continue()))
    epochs = [message.result for message, _ in received if isinstance(message, EpochDone)]
    values = [[result.validation_accuracy for result in each] for each in (epochs, results)]
    assert values[0] == values[1]
    message, weights = received[-1]
    assert message == Finished()
    Path("far.safetensors").write_bytes(weights or b"")
    trained, local = (read_tensors(Path(name)) for name in ("far.safetensors", "local.safetensors"))
    assert trained.tensors.keys() == local.tensors.keys()
    assert all(tensor.equal(local.tensors[name]) for name, tensor in trained.tensors.items())
    assert not list(here.rglob("*.weights"))
    assert not list(here.rglob("*.checkpoint"))
    assert {path.name for path in here.rglob("*.npy")} == {"train_images.npy", "train_labels.npy"}


def test_the_images_are_stored_once(images: DataSet, far: Relay, here: Path) -> None:
    training = elsewhere(small_training(images))
    said(far, None)
    times = set()
    for seed in (1, 2):
        again = training.model_copy(update={"seed": seed})
        assert isinstance(said(far, Train(training=again), *files(images))[0], EpochDone)
        assert said(far, Stop()) == (Finished(), None)
        times |= {path.stat().st_mtime_ns for path in here.rglob("train_images.npy")}
    assert len(times) == 1


def test_an_interrupted_training_far_away_goes_on_there_from_its_checkpoint(
    switches: Switches, here: Path
) -> None:
    switches.add("hang", epoch=2, times=1)
    training = example_training(epochs=4, checkpoint="/nowhere/7.checkpoint")
    first = Relay(TRAINER, 1, shared=False, driver=FAR)
    said(first, None)
    assert said(first, Train(training=training))[0] == EpochDone(result=curve(training)[0])
    assert isinstance(said(first, Continue())[0], EpochDone)
    first.exchange(encode(Continue()), 0.0)
    switches.wait_for_epochs(3)
    first.interrupt(SECONDS)
    first.close()
    assert len(list(here.rglob("*.checkpoint"))) == 1
    second = Relay(TRAINER, 1, shared=False, driver=FAR)
    said(second, None)
    message, _ = said(second, Train(training=training))
    assert isinstance(message, EpochDone)
    assert message.result.restored
    second.close()


@pytest.mark.parametrize(("shared", "driver"), [(True, FAR), (False, this_host())])
def test_where_paths_hold_they_stay(shared: bool, driver: Host, here: Path) -> None:
    weights = Path("1.weights").absolute()
    relay = Relay(TRAINER, 1, shared=shared, driver=driver)
    assert relay.is_near() == (driver == this_host())
    said(relay, None)
    message, sent = said(relay, Train(training=example_training(epochs=1, weights=str(weights))))
    assert isinstance(message, EpochDone)
    assert said(relay, Continue()) == (Finished(), None)
    relay.close()
    assert sent is None
    assert weights.exists()
    assert not list(here.iterdir())


def test_a_worker_that_dies_is_told_with_its_kind(switches: Switches) -> None:
    switches.add("kill", epoch=0)
    relay = Relay(TRAINER, 1, shared=False, driver=this_host())
    said(relay, None)
    answer = relay.exchange(encode(Train(training=example_training())), SECONDS)
    assert answer.line is None
    assert answer.died is not None
    assert answer.died[0] == "killed"
    relay.close()


def test_a_failure_has_no_weights(switches: Switches, far: Relay, images: DataSet) -> None:
    said(far, None)
    too_many = elsewhere(small_training(images, train_images=10_000))
    message, weights = said(far, Train(training=too_many), *files(images))
    assert isinstance(message, Failed)
    assert weights is None
