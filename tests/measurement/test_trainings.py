"""Stored trainings: what is finished is never trained again, and nothing loses a finished one."""

import json
import threading
from pathlib import Path

import pytest

from mc1opt.config import config_id
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.errors import StorageError, WorkerError
from mc1opt.measurement.plan import Job
from mc1opt.measurement.store import StoredTraining, TrainingStore
from mc1opt.measurement.trainings import OVERHEAD_MACS, StoredTrainings
from mc1opt.models.cost import cost
from mc1opt.spec import Training
from mc1opt.workers.pool import ProcessPool
from mc1opt.workers.stop import StopFlag
from tests.support.curves import TRAINER, CurvePool, Switches, curve, example_training

PATH = Path("models/trainings.jsonl")


def jobs(count: int = 3, **changes: object) -> list[Job]:
    return [Job("#7", seed, example_training(seed=seed, **changes)) for seed in range(count)]


def stopping(switches: Switches, epochs: int) -> StopFlag:
    """A flag that is set when so many epochs were begun."""
    stop = StopFlag()

    def stop_soon() -> None:
        switches.wait_for_epochs(epochs)
        stop.set("signal", "SIGINT")

    threading.Thread(target=stop_soon).start()
    return stop


class Run:
    """A call of `train` on the store of the current folder, and what came of it."""

    def __init__(self, trained: list[Job], *, workers: int = 1, wanted=None, **fields) -> None:
        self.results: dict[int, StoredTraining] = {}
        self.lines: list[str] = []
        self.stop = fields.pop("stop", StopFlag())
        self.pools: list[CurvePool] = []

        def new_pool() -> CurvePool:
            self.pools.append(CurvePool(workers))
            return self.pools[-1]

        def on_result(job: Job, stored: StoredTraining) -> None:
            assert threading.current_thread() is threading.main_thread()
            self.results[job.seed] = stored

        with StoredTrainings(
            TrainingStore(PATH), new_pool, self.stop, self.lines.append, len(trained), **fields
        ) as trainings:
            self.finished = trainings.train(trained, on_result, wanted or (lambda job: True))
        self.trainings = trainings


def begun(switches: Switches) -> list[tuple[int, int]]:
    """Seed and epoch of all epochs that were begun."""
    return [(epoch["seed"], epoch["epoch"]) for epoch in switches.epochs()]


# ---- The store -------------------------------------------------------------------------------------------


def test_results_are_those_of_the_trainings_and_are_stored() -> None:
    run = Run(jobs())
    assert run.finished
    for job in jobs():
        stored = TrainingStore(PATH).find(job.training)
        assert stored == run.results[job.seed]
        assert stored.curve == tuple(curve(job.training))
        assert stored.value == stored.curve[-1].validation_accuracy
        assert stored.key.config_id == config_id(job.training.config)
        assert stored.versions["torch"]
    assert len(PATH.read_text().splitlines()) == 3
    assert [line.split("  ")[0] for line in run.lines] == ["1/3", "2/3", "3/3"]
    assert run.lines[0].startswith(f"1/3  #7 seed 1: {run.results[0].value:.4f} in ")


def with_weights() -> Training:
    return example_training(weights=str(Path("weights/w.safetensors").absolute()))


def test_a_training_whose_weights_are_gone_or_others_is_trained_again(switches: Switches) -> None:
    job = Job("kept", 0, with_weights())
    Run([job])
    weights = Path(job.training.weights)
    assert len(begun(switches)) == 3
    Run([job])
    assert len(begun(switches)) == 3
    content = weights.read_bytes()
    weights.write_bytes(content[:-1] + b"\x00")
    Run([job])
    assert len(begun(switches)) == 6
    assert weights.read_bytes() == content
    weights.unlink()
    Run([job])
    assert len(begun(switches)) == 9
    assert TrainingStore(PATH).find(job.training) is not None


# ---- Trained once ----------------------------------------------------------------------------------------


def test_only_what_is_missing_is_trained_and_without_it_no_pool_is_made(switches: Switches) -> None:
    first = Run(jobs(2))
    again = Run(jobs(2))
    assert (again.results, again.pools, len(begun(switches))) == (first.results, [], 6)
    more = Run(jobs(4), workers=2)
    assert sorted(set(begun(switches)[6:])) == [(seed, epoch) for seed in (2, 3) for epoch in range(3)]
    assert sorted(more.results) == [0, 1, 2, 3]


def test_what_runs_is_said_after_a_silence(switches: Switches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mc1opt.measurement.trainings.SILENCE_SECONDS", 0.3)
    switches.add("sleep", value=1.5, seed=1, epoch=2, times=1)
    lines = Run(jobs(2)).lines
    value = curve(example_training(seed=1))[1].accuracy
    assert any(line.startswith(f"1/2  training #7 seed 2 2/3 epochs {value:.3f}") for line in lines)


# ---- Stopped ---------------------------------------------------------------------------------------------


def test_a_stop_keeps_what_is_finished_and_the_rest_is_trained_at_the_next_start(switches: Switches) -> None:
    switches.add("hang", seed=1, epoch=1)
    stopped = Run(jobs(), stop=stopping(switches, 5))
    assert not stopped.finished
    assert "SIGINT" in stopped.trainings.stopped_line()
    assert list(stopped.results) == [0]
    assert stopped.pools[0].closed
    switches.clear()
    resumed = Run(jobs())
    assert list(resumed.results) == [0, 1, 2]
    assert [pair for pair in begun(switches) if pair[0] == 0] == [(0, epoch) for epoch in range(3)]


def test_the_deadline_stops_in_good_order(switches: Switches) -> None:
    switches.add("hang", seed=1, epoch=0)
    stop = StopFlag()
    stop.limit(1.0)
    run = Run(jobs(), stop=stop)
    assert not run.finished
    assert run.stop.reason == "timeout"
    assert "time" in run.trainings.stopped_line()
    assert list(run.results) == [0]


def test_an_interrupted_training_goes_on_from_its_last_epoch(switches: Switches) -> None:
    switches.add("hang", seed=1, epoch=2, times=1)
    assert not Run(jobs(), stop=stopping(switches, 6)).finished
    assert len(checkpoints()) == 1
    resumed = Run(jobs())
    assert [epoch for seed, epoch in begun(switches) if seed == 1] == [0, 1, 2, 2]
    assert resumed.results[1].curve == tuple(curve(jobs()[1].training))
    assert checkpoints() == []


@pytest.mark.parametrize("restored", [0, 2])
def test_the_time_left_is_by_cost_at_the_pace_of_epochs_that_were_trained_now(
    switches: Switches, restored: int
) -> None:
    (cheap,) = jobs(1)
    dear = Job("dear", 1, example_training(seed=1, epochs=30, width=2048))
    if restored:
        switches.add("hang", seed=0, epoch=restored, times=1)
        assert not Run([cheap], stop=stopping(switches, restored + 1)).finished
    switches.add("sleep", value=1.0, seed=0, epoch=2, times=1)
    switches.add("hang", seed=1, epoch=0)
    stop = StopFlag()
    trainings = StoredTrainings(TrainingStore(PATH), CurvePool, stop, lambda _line: None, 3)
    left = [trainings.seconds_left()]

    def on_result(_job: Job, _stored: StoredTraining) -> None:
        left.append((trainings.seconds_left() or 0.0) / trainings.seconds)
        stop.set("signal", "SIGINT")

    with trainings:
        trainings.train([cheap, dear], on_result)
    costs = [
        cost(job.training.config.architecture, CIFAR10_SHAPE).macs + OVERHEAD_MACS for job in (cheap, dear)
    ]
    epochs = 30 * costs[1] / costs[0]  # of the cheap one
    later = (3 + epochs) / 2  # a third training, of which nothing is known
    assert left[0] is None
    assert left[1] == pytest.approx((epochs + later) / (3 - restored), rel=0.25)


def test_the_seconds_of_an_interrupted_training_are_those_of_all_its_epochs(switches: Switches) -> None:
    job = jobs(1)[0]
    path = TrainingStore(PATH).checkpoint_path(job.training)
    slow = job.training.model_copy(update={"checkpoint": str(path.absolute()), "checkpoint_seconds": 0.0})
    CurvePool(1).train(slow, lambda result: result.epoch < 1)
    run = Run([job])
    assert run.results[0].seconds >= sum(result.seconds for result in curve(job.training))


def checkpoints() -> list[Path]:
    return list(Path("models/checkpoints").glob("*"))


@pytest.mark.parametrize("end", ["stored", "not wanted", "diverged"])
def test_the_checkpoint_of_a_training_that_is_over_goes(switches: Switches, end: str) -> None:
    job = jobs(1)[0]
    if end == "diverged":
        switches.add("diverge", epoch=2)
    if end == "stored":
        Run([job])
    path = TrainingStore(PATH).checkpoint_path(job.training)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"seed": 0, "config_id": config_id(job.training.config), "epochs": 1}))
    path.with_name(f".{path.name}.7.tmp").touch()
    Run([job], wanted=lambda job: end != "not wanted")
    assert checkpoints() == []


# ---- Not wanted ------------------------------------------------------------------------------------------


def test_a_job_that_is_not_wanted_is_left_out_and_not_counted(switches: Switches) -> None:
    run = Run(jobs(), wanted=lambda job: job.seed != 1)
    assert run.finished
    assert list(run.results) == [0, 2]
    assert {seed for seed, _ in begun(switches)} == {0, 2}
    assert run.trainings.total == 2
    assert run.lines[-1].startswith("2/2  ")


def test_a_training_that_is_not_wanted_any_more_is_given_up_after_its_epoch(switches: Switches) -> None:
    run = Run(jobs(), wanted=lambda job: job.seed != 1 or (1, 1) not in begun(switches))
    assert list(run.results) == [0, 2]
    assert (1, 2) not in begun(switches)
    assert TrainingStore(PATH).find(jobs()[1].training) is None


# ---- Failures --------------------------------------------------------------------------------------------


def test_a_failure_of_the_config_is_a_result_and_is_not_tried_again(switches: Switches) -> None:
    switches.add("diverge", seed=1, epoch=1)
    run = Run(jobs())
    assert run.finished
    assert (run.results[1].failure.kind, run.results[1].value) == ("diverged", None)
    assert "(diverged)" in run.lines[1]
    switches.clear()
    again = Run(jobs())
    assert (again.results[1], again.pools) == (run.results[1], [])


def test_a_failure_of_the_world_is_no_result_the_others_are_kept_and_it_is_tried_again(
    switches: Switches,
) -> None:
    switches.add("kill", seed=1, epoch=1, times=1)
    with pytest.raises(WorkerError, match=r"seed 2 \(killed\)"):
        Run(jobs())
    assert [TrainingStore(PATH).find(job.training) is not None for job in jobs()] == [True, False, True]
    assert Run(jobs()).finished


def test_a_result_that_cannot_be_stored_is_an_error() -> None:
    store = TrainingStore(PATH)
    PATH.mkdir(parents=True)
    with (
        StoredTrainings(store, CurvePool, StopFlag(), lambda line: None, 1) as trainings,
        pytest.raises(StorageError, match="cannot be written"),
    ):
        trainings.train(jobs(1), lambda job, stored: None)


def test_where_memory_is_short_a_batch_is_split_and_an_interrupted_training_stays_so(
    switches: Switches,
) -> None:
    switches.add("out_of_memory", epoch=1, times=1)
    switches.add("hang", epoch=2, times=1)
    assert not Run(jobs(1), stop=stopping(switches, 5)).finished
    resumed = Run(jobs(1))
    assert [epoch for _, epoch in begun(switches)] == [0, 1, 0, 1, 2, 2]
    smaller = jobs(1)[0].training.in_smaller_steps()
    assert resumed.results[0].accumulation == smaller.accumulation > 1
    assert resumed.results[0].curve == tuple(curve(smaller))
    assert TrainingStore(PATH).find(jobs(1)[0].training) == resumed.results[0]
    assert checkpoints() == []


def test_memory_that_is_short_of_a_split_batch_too_is_a_failure_that_is_tried_again(
    switches: Switches,
) -> None:
    switches.add("out_of_memory", epoch=1, times=2)
    with pytest.raises(WorkerError, match=r"seed 1 \(out_of_memory\).*--workers 1"):
        Run(jobs(1))
    assert Run(jobs(1)).results[0].failure is None


# ---- In processes ----------------------------------------------------------------------------------------


def test_worker_processes_train_as_the_pool_without_processes_does(switches: Switches) -> None:
    with StoredTrainings(
        TrainingStore(PATH), lambda: ProcessPool(2, trainer=TRAINER), StopFlag(), lambda line: None, 3
    ) as trainings:
        assert trainings.train(jobs(), lambda job, stored: None)
    for job in jobs():
        assert TrainingStore(PATH).find(job.training).curve == tuple(curve(job.training))
