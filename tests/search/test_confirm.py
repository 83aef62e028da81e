"""Confirmation: the best trials again, with new seeds, and nothing else changed by it."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from mc1opt.config import config_from_json
from mc1opt.database import records
from mc1opt.database.opening import load_study
from mc1opt.database.records import StudyRecord, TrialRecord, by_value
from mc1opt.database.storage import StudyStorage
from mc1opt.display.tables import trial_lines
from mc1opt.search.confirm import SEEDS, Confirmation, missing_repetitions
from mc1opt.search.observers import Observer
from mc1opt.seeds import derive_seed
from mc1opt.spec import EpochResult, Fidelity, Training
from mc1opt.workers import stop as stop_module
from mc1opt.workers.speed import SPEED_SEED
from mc1opt.workers.stop import StopFlag
from tests.search.test_objective import objective
from tests.search.test_observers import Recorder
from tests.support.curves import CurvePool, Switches, curve
from tests.support.studies import (
    DATA,
    EPOCHS,
    SEED,
    Clock,
    dead_owner,
    definition_of,
    facts,
    living_owner,
    new_storage,
    run_study,
    smooth_space,
    stored,
)

SMOOTH = definition_of(smooth_space)
TRIALS = 3


def best(record: StudyRecord, count: int) -> list[TrialRecord]:
    return by_value(record.trials)[:count]


def new_seed(number: int, index: int) -> int:
    return derive_seed(SEED, number, "confirm", index)


def confirmed(record: StudyRecord) -> set[int]:
    return {trial.number for trial in record.trials if trial.confirmations}


def test_the_best_starting_point_is_trained_again_too() -> None:
    record = run_study(7, confirm=1, sampler="local").record
    ranked = by_value(record.trials)
    given = [trial for trial in ranked if trial.starting_point]
    twice = {trial.number for trial in record.trials if len(trial.confirmations) == SEEDS}
    assert given[0].number in twice
    assert len(twice) == 2


def test_what_goes_on_is_trained_again_without_the_short_schedule(switches: Switches) -> None:
    fidelity = Fidelity(train_images=1000, epochs=EPOCHS, short_epochs=2)
    record = run_study(TRIALS, SMOOTH, confirm=1, fidelity=fidelity).record
    (trial,) = [trial for trial in record.trials if trial.confirmations]
    assert len(trial.values_by_epoch) == EPOCHS + 2
    epochs = [line["epoch"] for line in switches.epochs() if line["seed"] == new_seed(trial.number, 0)]
    assert epochs == list(range(EPOCHS))
    assert trial.confirmations[0]["value"] == pytest.approx(trial.value, abs=0.03)


@pytest.mark.parametrize("workers", [1, 4])
def test_the_best_trials_are_trained_again_to_the_end_with_new_seeds(
    switches: Switches, workers: int
) -> None:
    record = run_study(TRIALS, SMOOTH, workers=workers, confirm=2).record
    chosen = best(record, 2)
    assert confirmed(record) == {trial.number for trial in chosen}
    for trial in chosen:
        assert trial.config is not None
        by_seed = {entry["seed"]: entry["value"] for entry in trial.confirmations}
        assert set(by_seed) == {new_seed(trial.number, index) for index in range(SEEDS)}
        for seed, value in by_seed.items():
            training = Training(
                config=config_from_json(trial.config),
                fidelity=Fidelity(train_images=1000, epochs=EPOCHS),
                seed=seed,
                data=DATA,
            )
            assert value == curve(training)[-1].validation_accuracy
    assert len({epoch["seed"] for epoch in switches.epochs()}) == TRIALS + 2 * SEEDS
    assert len(record.trials) == TRIALS


def test_a_second_search_does_not_confirm_again(switches: Switches) -> None:
    first = run_study(TRIALS, SMOOTH, confirm=2)
    before = len(switches.epochs())
    assert run_study(TRIALS, SMOOTH, confirm=2).record == first.record
    assert len(switches.epochs()) == before
    run_study(TRIALS, SMOOTH, confirm=3)
    assert len(switches.epochs()) == before + SEEDS * EPOCHS


def test_the_sampler_does_not_see_confirmations() -> None:
    for trials in (3, 4):
        run_study(trials, SMOOTH, confirm=2, sampler="local")
    run_study(4, SMOOTH, path="without.db", sampler="local")
    without = facts(stored("without.db"))
    assert [{**trial, "confirmations": []} for trial in facts(stored())] == without
    assert confirmed(stored()) != set()


def test_an_interrupted_confirmation_goes_on_where_it_was(switches: Switches) -> None:
    first, second, third = best(run_study(TRIALS, SMOOTH).record, 3)
    before = len(switches.epochs())
    switches.add("hang", seed=new_seed(second.number, 0), epoch=1, times=1)
    stop = StopFlag()

    class Stops(Observer):
        def confirmed(self, number: int, value: float | None) -> None:
            assert number == first.number  # each one's first seed comes first
            switches.wait_for_epochs(before + EPOCHS + 2)
            stop.set("signal", "SIGINT")

    ended = run_study(TRIALS, SMOOTH, confirm=3, stop=stop, observers=(Stops(),))
    assert ended.reason == "signal"
    assert confirmed(ended.record) == {first.number}
    record = run_study(TRIALS, SMOOTH, confirm=3).record
    assert confirmed(record) == {first.number, second.number, third.number}
    assert all(len(trial.confirmations) == SEEDS for trial in best(record, 3))
    begun = [epoch["seed"] for epoch in switches.epochs()[before:]]
    assert begun.count(new_seed(first.number, 0)) == EPOCHS
    assert begun.count(new_seed(second.number, 0)) == 1 + EPOCHS  # one epoch twice
    assert list(Path("s.db.files/checkpoints/s").glob("*.checkpoint")) == []


@pytest.mark.parametrize(("action", "kind"), [("diverge", "diverged"), ("kill", "killed")])
def test_a_confirmation_that_failed_is_repeated_only_if_the_config_is_not_to_blame(
    switches: Switches, action: Any, kind: str
) -> None:
    chosen = best(run_study(TRIALS, SMOOTH).record, 1)[0]
    seed = new_seed(chosen.number, 0)
    switches.add(action, seed=seed, epoch=1, times=1)
    recorder = Recorder()
    record = run_study(TRIALS, SMOOTH, confirm=1, observers=(recorder,)).record
    failed, good = best(record, 1)[0].confirmations
    assert (failed["seed"], failed["value"], failed["failure"]["kind"]) == (seed, None, kind)
    told = [arguments for event, arguments in recorder.calls if event == "confirmed"]
    assert told == [(chosen.number, None), (chosen.number, good["value"])]
    record = run_study(TRIALS, SMOOTH, confirm=1).record
    values = {entry["seed"]: entry["value"] for entry in best(record, 1)[0].confirmations}
    assert values.pop(good["seed"]) == good["value"]
    assert [value is not None for value in values.values()] == [kind == "killed"]


@pytest.mark.parametrize("other", ["lives", "is dead", "has ended it"])
def test_what_another_process_trains_again_is_left_to_it(switches: Switches, other: str) -> None:
    chosen = best(run_study(TRIALS, SMOOTH).record, 1)[0]
    mine = objective(SMOOTH)
    trials = mine.study.get_trials()
    repetitions = missing_repetitions(mine, trials, 1)
    seeds = [repetition.training.seed for repetition in repetitions]
    (trial_id,) = {repetition.trial_id for repetition in repetitions}
    meanwhile: dict[str, Any] = {
        "lives": {"confirming": [{"seed": seeds[0], "owner": living_owner()}]},
        "is dead": {"confirming": [{"seed": seeds[0], "owner": dead_owner()}]},
        "has ended it": {"confirmations": [{"seed": seeds[0], "value": 0.5}]},
    }
    new_storage().set_user_attributes(trial_id, meanwhile[other])
    before = len(switches.epochs())
    Confirmation(mine, repetitions).work()
    begun = {epoch["seed"] for epoch in switches.epochs()[before:]}
    assert begun == (set(seeds) if other == "is dead" else {seeds[1]})
    found = {entry["seed"] for entry in stored().trials[chosen.number].confirmations}
    assert found == ({seeds[1]} if other == "lives" else set(seeds))


def test_what_another_process_ends_just_before_the_claim_is_left_to_it(
    switches: Switches, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_study(1, SMOOTH)
    mine = objective(SMOOTH)
    repetitions = missing_repetitions(mine, mine.study.get_trials(), 1)[:1]
    change = mine.storage.change_user_attribute

    def late(trial_id: int, key: str, *rest: Any) -> None:
        entry = {"seed": repetitions[0].training.seed, "value": 0.5}
        new_storage().set_user_attributes(trial_id, {records.CONFIRMATIONS: [entry]})
        change(trial_id, key, *rest)

    monkeypatch.setattr(mine.storage, "change_user_attribute", late)
    before = len(switches.epochs())
    Confirmation(mine, repetitions).work()
    assert len(switches.epochs()) == before
    assert [entry["value"] for entry in stored().trials[0].confirmations] == [0.5]


def test_a_confirmation_is_trained_in_the_steps_of_its_trial(switches: Switches) -> None:
    switches.add("out_of_memory", epoch=1, times=1)
    pool = NotingPool()
    run_study(1, SMOOTH, pool=pool, confirm=1)
    assert [training.accumulation for training in pool.trainings] == [1, 4, 4, 4]


def test_a_confirmation_that_runs_out_of_memory_goes_on_in_smaller_steps(switches: Switches) -> None:
    run_study(1, SMOOTH)
    switches.add("out_of_memory", seed=new_seed(0, 0), epoch=1, times=1)
    switches.add("hang", seed=new_seed(0, 0), epoch=2, times=1)
    stop = StopFlag()

    class Stops(Observer):
        def epoch(self, number: int, result: EpochResult) -> None:
            if result.epoch == 1:
                stop.set("signal", "SIGINT")

    assert run_study(1, SMOOTH, confirm=1, stop=stop, observers=(Stops(),)).reason == "signal"
    pool = NotingPool()
    record = run_study(1, SMOOTH, confirm=1, pool=pool).record
    assert {training.seed: training.accumulation for training in pool.trainings} == {
        new_seed(0, 0): 4,
        new_seed(0, 1): 1,
    }
    steps = {entry["seed"]: entry["accumulation"] for entry in record.trials[0].confirmations}
    assert steps == {new_seed(0, 0): 4, new_seed(0, 1): 1}
    assert "4 steps" in "\n".join(trial_lines(record.trials[0]))


def test_two_processes_that_confirm_a_trial_at_once_both_have_their_say() -> None:
    run_study(1, SMOOTH)
    others = [new_storage() for _ in range(2)]
    (trial,) = others[0].get_all_trials(load_study(others[0], "s")._study_id)

    def add(storage: StudyStorage, entry: int) -> None:
        storage.change_user_attribute(trial._trial_id, "list", lambda old: [*(old or []), entry])

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(add, others * 5, range(10)))
    assert sorted(others[0].get_trial(trial._trial_id).user_attrs["list"]) == list(range(10))


class NotingPool(CurvePool):
    """Keeps the trainings of the study, not those that measure the machine's speed."""

    def __init__(self) -> None:
        super().__init__(1)
        self.trainings: list[Training] = []

    def train(self, training: Training, on_epoch: Callable[[EpochResult], bool]) -> bool:
        if training.seed != SPEED_SEED:
            self.trainings.append(training)
        return super().train(training, on_epoch)


def test_a_training_that_another_process_has_confirmed_meanwhile_counts_once() -> None:
    chosen = best(run_study(TRIALS, SMOOTH).record, 1)[0]
    other = new_storage(owner=dead_owner())
    trial_id = other.get_all_trials(other.get_study_id_from_name("s"))[chosen.number]._trial_id

    class Meanwhile(Observer):
        def epoch(self, number: int, result: EpochResult) -> None:
            entries = [{"seed": new_seed(chosen.number, index), "value": 0.5} for index in range(SEEDS)]
            other.set_user_attributes(trial_id, {records.CONFIRMATIONS: entries})

    run_study(TRIALS, SMOOTH, confirm=1, observers=(Meanwhile(),))
    entries = stored().trials[chosen.number].confirmations
    assert sorted(entry["seed"] for entry in entries) == sorted(
        new_seed(chosen.number, index) for index in range(SEEDS)
    )


def test_new_seeds_are_no_trials_seed() -> None:
    seeds = {new_seed(number, index) for number in range(200) for index in range(SEEDS)}
    assert len(seeds) == 200 * SEEDS
    assert not seeds & {derive_seed(SEED, number) for number in range(1000)}


def test_the_deadline_ends_confirmations_too(switches: Switches, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = best(run_study(TRIALS, SMOOTH).record, 1)[0]
    clock = Clock()
    monkeypatch.setattr(stop_module, "time", clock)
    switches.add("hang", seed=new_seed(chosen.number, 0))

    class LetsTimePass(Observer):
        def trial_started(self, number: int, summary: str) -> None:
            clock.set_forward(500)

    ended = run_study(TRIALS, SMOOTH, confirm=1, timeout=500, observers=(LetsTimePass(),))
    assert ended.reason == "timeout"
    assert confirmed(ended.record) == set()
