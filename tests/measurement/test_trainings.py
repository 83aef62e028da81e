"""Stored trainings: what is finished is never trained again, and nothing loses a finished one."""

import json
import threading
from pathlib import Path

import pytest

from mc1opt.config import config_id
from mc1opt.errors import StorageError, WorkerError
from mc1opt.measurement.store import StoredTraining, TrainingStore
from mc1opt.measurement.trainings import Job, StoredTrainings
from mc1opt.spec import Fold, Training
from mc1opt.workers.pool import ProcessPool
from mc1opt.workers.stop import StopFlag
from tests.support.curves import TRAINER, CurvePool, Switches, curve, example_training

PATH = Path("models/trainings.jsonl")


def jobs(count: int = 3, **changes: object) -> list[Job]:
    return [Job(f"seed {seed}", example_training(seed=seed, **changes)) for seed in range(count)]


class Run:
    """A call of `train` on the store of the current folder, and what came of it."""

    def __init__(self, trained: list[Job], *, workers: int = 1, wanted=None, **fields) -> None:
        self.results: dict[str, StoredTraining] = {}
        self.lines: list[str] = []
        self.stop = fields.pop("stop", StopFlag())
        self.pools: list[CurvePool] = []

        def new_pool() -> CurvePool:
            self.pools.append(CurvePool(workers))
            return self.pools[-1]

        def on_result(job: Job, stored: StoredTraining) -> None:
            assert threading.current_thread() is threading.main_thread()
            self.results[job.label] = stored

        with StoredTrainings(
            TrainingStore(PATH), new_pool, self.stop, self.lines.append, len(trained), **fields
        ) as trainings:
            self.finished = trainings.train(trained, on_result, wanted or (lambda job: True))
        self.total = trainings.total
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
        assert stored == run.results[job.label]
        assert stored.curve == tuple(curve(job.training))
        assert stored.value == stored.curve[-1].validation_accuracy
        assert stored.key.config_id == config_id(job.training.config)
        assert stored.versions["torch"]
    assert len(PATH.read_text().splitlines()) == 3


def with_weights() -> Training:
    return example_training(weights=str(Path("weights/w.safetensors").absolute()))


def test_a_training_whose_weights_are_gone_or_others_is_trained_again(switches: Switches) -> None:
    job = Job("kept", with_weights())
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


def test_what_is_stored_is_not_trained_again_and_needs_no_pool(switches: Switches) -> None:
    first = Run(jobs())
    again = Run(jobs())
    assert len(begun(switches)) == 9
    assert again.results == first.results
    assert again.pools == []


def test_only_what_is_missing_is_trained(switches: Switches) -> None:
    Run(jobs(2))
    run = Run(jobs(4), workers=2)
    assert sorted(set(begun(switches)[6:])) == [(seed, epoch) for seed in (2, 3) for epoch in range(3)]
    assert sorted(run.results) == [f"seed {seed}" for seed in range(4)]


def test_each_finished_training_has_a_line_with_the_count(switches: Switches) -> None:
    lines = Run(jobs(2)).lines
    assert [line.split("  ")[0] for line in lines] == ["1/2", "2/2"]
    assert lines[0].startswith(f"1/2  seed 0: {curve(example_training(seed=0))[-1].accuracy:.4f} in ")


def test_what_runs_is_said_after_a_silence(switches: Switches, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mc1opt.measurement.trainings.SILENCE_SECONDS", 0.3)
    switches.add("sleep", value=1.5, seed=1, epoch=2, times=1)
    lines = Run(jobs(2)).lines
    value = curve(example_training(seed=1))[1].accuracy
    assert any(line.startswith(f"1/2  training seed 1 2/3 epochs {value:.3f}") for line in lines)


# ---- Stopped ---------------------------------------------------------------------------------------------


def test_a_stop_keeps_what_is_finished_and_the_rest_is_trained_at_the_next_start(switches: Switches) -> None:
    switches.add("hang", seed=1, epoch=1)
    stop = StopFlag()

    def stop_soon() -> None:
        switches.wait_for_epochs(5)
        stop.set("signal", "SIGINT")

    thread = threading.Thread(target=stop_soon)
    thread.start()
    stopped = Run(jobs(), stop=stop)
    thread.join()
    assert not stopped.finished
    assert list(stopped.results) == ["seed 0"]
    assert stopped.pools[0].closed
    switches.clear()
    resumed = Run(jobs())
    assert list(resumed.results) == ["seed 0", "seed 1", "seed 2"]
    assert [pair for pair in begun(switches) if pair[0] == 0] == [(0, epoch) for epoch in range(3)]


def test_the_deadline_stops_in_good_order(switches: Switches) -> None:
    switches.add("hang", seed=1, epoch=0)
    stop = StopFlag()
    stop.limit(1.0)
    run = Run(jobs(), stop=stop)
    assert not run.finished
    assert run.stop.reason == "timeout"
    assert list(run.results) == ["seed 0"]


def test_an_interrupted_training_goes_on_from_its_last_epoch(switches: Switches) -> None:
    switches.add("hang", seed=1, epoch=2, times=1)
    stop = StopFlag()
    thread = threading.Thread(target=lambda: (switches.wait_for_epochs(6), stop.set("signal", "SIGINT")))
    thread.start()
    assert not Run(jobs(), stop=stop).finished
    thread.join()
    assert len(checkpoints()) == 1
    resumed = Run(jobs())
    assert [epoch for seed, epoch in begun(switches) if seed == 1] == [0, 1, 2, 2]
    assert resumed.results["seed 1"].curve == tuple(curve(jobs()[1].training))
    assert checkpoints() == []
    # The pace is that of epochs trained now: the start, one of seed 1, three of seed 2.
    assert len(resumed.trainings._epochs) == 1 + 1 + 3


def test_the_seconds_of_an_interrupted_training_are_those_of_all_its_epochs(switches: Switches) -> None:
    job = jobs(1)[0]
    path = TrainingStore(PATH).checkpoint_path(job.training)
    slow = job.training.model_copy(update={"checkpoint": str(path.absolute()), "checkpoint_seconds": 0.0})
    CurvePool(1).train(slow, lambda result: result.epoch < 1)
    run = Run([job])
    assert run.results["seed 0"].seconds >= sum(result.seconds for result in curve(job.training))


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


def test_two_trainings_never_share_a_checkpoint() -> None:
    store = TrainingStore(PATH)
    training = example_training()
    others = [
        example_training(seed=1),
        example_training(epochs=4),
        example_training(learning_rate=0.2),
        example_training(fold=Fold(index=0, count=4)),
        example_training(precision="bfloat16"),
        training.in_smaller_steps(),
    ]
    assert len({store.checkpoint_path(each) for each in (training, *others)}) == 7
    assert store.checkpoint_path(with_weights()) == store.checkpoint_path(training)


# ---- Not wanted ------------------------------------------------------------------------------------------


def test_a_job_that_is_not_wanted_is_left_out_and_not_counted(switches: Switches) -> None:
    run = Run(jobs(), wanted=lambda job: job.label != "seed 1")
    assert run.finished
    assert list(run.results) == ["seed 0", "seed 2"]
    assert {seed for seed, _ in begun(switches)} == {0, 2}
    assert run.total == 2
    assert run.lines[-1].startswith("2/2  ")


def test_a_training_that_is_not_wanted_any_more_is_given_up_after_its_epoch(switches: Switches) -> None:
    run = Run(jobs(), wanted=lambda job: job.label != "seed 1" or (1, 1) not in begun(switches))
    assert list(run.results) == ["seed 0", "seed 2"]
    assert (1, 2) not in begun(switches)
    assert TrainingStore(PATH).find(jobs()[1].training) is None


# ---- Failures --------------------------------------------------------------------------------------------


def test_a_failure_of_the_config_is_a_result_and_is_not_tried_again(switches: Switches) -> None:
    switches.add("diverge", seed=1, epoch=1)
    run = Run(jobs())
    assert run.finished
    assert run.results["seed 1"].failure.kind == "diverged"
    assert run.results["seed 1"].value is None
    assert "failed (diverged)" in run.lines[1]
    switches.clear()
    again = Run(jobs())
    assert again.results["seed 1"] == run.results["seed 1"]
    assert again.pools == []


def test_a_failure_of_the_world_is_no_result_the_others_are_kept_and_it_is_tried_again(
    switches: Switches,
) -> None:
    switches.add("kill", seed=1, epoch=1, times=1)
    with pytest.raises(WorkerError, match=r"1 of the trainings failed.*seed 1 \(killed\).*same command"):
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
    stop = StopFlag()
    thread = threading.Thread(target=lambda: (switches.wait_for_epochs(5), stop.set("signal", "SIGINT")))
    thread.start()
    assert not Run(jobs(1), stop=stop).finished
    thread.join()
    resumed = Run(jobs(1))
    assert [epoch for _, epoch in begun(switches)] == [0, 1, 0, 1, 2, 2]
    smaller = jobs(1)[0].training.in_smaller_steps()
    assert resumed.results["seed 0"].accumulation == smaller.accumulation > 1
    assert resumed.results["seed 0"].curve == tuple(curve(smaller))
    assert TrainingStore(PATH).find(jobs(1)[0].training) == resumed.results["seed 0"]
    assert checkpoints() == []


def test_memory_that_is_short_of_a_split_batch_too_is_a_failure_that_is_tried_again(
    switches: Switches,
) -> None:
    switches.add("out_of_memory", epoch=1, times=2)
    with pytest.raises(WorkerError, match=r"seed 0 \(out_of_memory\).*--workers 1 if memory is short"):
        Run(jobs(1))
    assert Run(jobs(1)).results["seed 0"].failure is None


# ---- In processes ----------------------------------------------------------------------------------------


def test_worker_processes_train_as_the_pool_without_processes_does(switches: Switches) -> None:
    with StoredTrainings(
        TrainingStore(PATH), lambda: ProcessPool(2, trainer=TRAINER), StopFlag(), lambda line: None, 3
    ) as trainings:
        assert trainings.train(jobs(), lambda job, stored: None)
    for job in jobs():
        assert TrainingStore(PATH).find(job.training).curve == tuple(curve(job.training))
