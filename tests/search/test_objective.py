"""One trial: what needs no training, what is reported, and what is told of it."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner, NopPruner
from optuna.trial import BaseTrial, FrozenTrial, TrialState

from mc1opt.config import Config, config_from_json
from mc1opt.database import records
from mc1opt.database.interrupted import take_up_interrupted
from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.storage import StudyStorage
from mc1opt.database.trial import OwnTrial
from mc1opt.describe import describe_config
from mc1opt.search.definition import StudyDefinition
from mc1opt.search.objective import Objective, Proposal
from mc1opt.search.observers import Observers
from mc1opt.search.study import open_study
from mc1opt.seeds import derive_seed
from mc1opt.spec import Training
from tests.search.test_observers import Recorder
from tests.support.curves import CurvePool, Switches, curve
from tests.support.pages import Pages
from tests.support.studies import (
    DATA,
    ELSEWHERE,
    EPOCHS,
    MAX_MACS,
    ONE_EPOCH,
    SEED,
    dead_owner,
    definition_of,
    new_storage,
    run_study,
    settings,
    small_definition,
    smooth_space,
    stored,
    tiny_space,
)

SMOOTH = definition_of(smooth_space)
TWICE = definition_of(
    smooth_space,
    starting_points={name: {"width": 64, "learning_rate": 0.1, "batch_size": 64} for name in ("a", "b")},
)
"""Two starting points with the same config."""


class Asked(BasePruner):
    """Keeps the epochs for which it is asked, calls `then`, and ends trials after one of them."""

    def __init__(
        self, prune_after: int | None = None, then: Callable[[FrozenTrial], object] = lambda _trial: None
    ) -> None:
        self.epochs: list[int | None] = []
        self._prune_after = prune_after
        self._then = then

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        self.epochs.append(trial.last_step)
        self._then(trial)
        return trial.last_step == self._prune_after


def objective(
    definition: StudyDefinition = SMOOTH,
    *,
    owner: dict[str, Any] | None = None,
    pruner: BasePruner | None = None,
    max_macs: int = MAX_MACS,
    observers: Observers | None = None,
) -> Objective:
    """The objective of a study in ./s.db, on a pool of one worker."""
    storage = new_storage(owner=owner)
    chosen = settings(
        1, max_macs=max_macs, sampler="random", pruner="none", device="cpu", checkpoint_seconds=0.0
    )
    study = open_study(definition, chosen, storage, DATA)
    study.pruner = pruner or NopPruner()
    take_up_interrupted(study, storage)
    return Objective(
        definition=definition,
        settings=chosen,
        study=study,
        storage=storage,
        pool=CurvePool(1),
        data=DATA,
        weights_folder=Path("weights"),
        observers=observers or Observers([]),
    )


def propose(objective: Objective) -> Proposal:
    """A trial to train."""
    proposal = objective.propose()
    assert isinstance(proposal, Proposal)
    return proposal


def end(objective: Objective) -> FrozenTrial:
    """A trial that ends without training."""
    trial = objective.propose()
    assert isinstance(trial, FrozenTrial)
    return trial


def train(**options: Any) -> FrozenTrial:
    """The first trial of an objective, trained."""
    mine = objective(**options)
    return mine.train(propose(mine))


def begun(switches: Switches) -> list[int]:
    """The epochs of all trainings, in the order in which they were begun."""
    return [epoch["epoch"] for epoch in switches.epochs()]


def with_space(space: Callable[[BaseTrial], Config]) -> Objective:
    """An objective whose space raises only now: comparing search spaces draws from it as well."""
    mine = objective(definition_of(tiny_space))
    return Objective(**{**vars(mine), "definition": definition_of(space, path=Path(__file__))})


# ---- Too large, and duplicates ---------------------------------------------------------------------------


def test_what_is_too_large_is_a_violated_constraint_and_is_never_trained(whole: Path) -> None:
    trials = [trial for trial in stored(str(whole / "s.db")).trials if trial.outcome == "too_large"]
    assert trials
    trained = {epoch["config_id"] for epoch in Switches(whole / "switches").epochs()}
    for trial in trials:
        assert trial.macs is not None
        assert trial.macs > MAX_MACS
        assert trial.constraints == {records.TOO_LARGE: pytest.approx(trial.macs / MAX_MACS - 1)}
        assert (trial.state, trial.value, trial.values_by_epoch) == ("PRUNED", None, [])
        assert trial.config_id not in trained


@pytest.mark.parametrize(("more", "trained"), [(0, True), (-1, False)])
def test_a_network_of_exactly_the_limit_is_trained(more: int, trained: bool) -> None:
    # Both starting points of TWICE: 64 outputs of 3 * 32 * 32 inputs, and 10 classes.
    mine = objective(TWICE, max_macs=3072 * 64 + 64 * 10 + more)
    result = mine.propose()
    assert isinstance(result, Proposal) == trained
    if isinstance(result, FrozenTrial):
        assert records.outcome(result) == "too_large"
        assert result.constraints[records.TOO_LARGE] > 0


def test_each_trial_says_what_became_of_it_and_its_config_in_words(whole: Path) -> None:
    trials = load_study(open_storage(str(whole / "s.db"), create=False), "s").get_trials()
    outcomes = [trial.user_attrs[records.OUTCOME] for trial in trials]
    assert outcomes == [records.outcome(trial) for trial in trials]
    assert {"complete", "pruned", "too_large", "duplicate", "failed"} <= set(outcomes)
    for trial in trials:
        config = config_from_json(trial.user_attrs[records.CONFIG])
        assert trial.user_attrs[records.SUMMARY] == describe_config(config)


def test_a_duplicate_names_the_trial_that_was_trained_and_has_no_reports(whole: Path) -> None:
    trials = stored(str(whole / "s.db")).trials
    duplicates = [trial for trial in trials if trial.outcome == "duplicate"]
    assert duplicates
    for trial in duplicates:
        assert trial.duplicate_of is not None
        original = trials[trial.duplicate_of]
        assert original.number < trial.number
        assert original.config_id == trial.config_id
        assert original.values_by_epoch or original.failure
        assert (trial.state, trial.value, trial.values_by_epoch) == ("PRUNED", None, [])
        assert trial.constraints == {}
    trained = [trial.config_id for trial in trials if trial.values_by_epoch and trial.outcome != "failed"]
    assert len(set(trained)) == len(trained)


@pytest.mark.parametrize(
    ("action", "outcomes"),
    [
        ("diverge", ["failed", "duplicate", "complete"]),
        ("kill", ["failed", "complete"]),
    ],
)
def test_a_config_that_failed_is_tried_again_only_if_the_world_was_to_blame(
    switches: Switches, action: Any, outcomes: list[str]
) -> None:
    switches.add(action, seed=derive_seed(SEED, 0), epoch=1)
    trials = run_study(1, TWICE).record.trials
    assert [trial.outcome for trial in trials] == outcomes
    assert trials[1].duplicate_of == (0 if outcomes[1] == "duplicate" else None)


def test_a_config_that_is_being_trained_is_not_trained_at_the_same_time() -> None:
    mine = objective(TWICE)
    propose(mine)
    assert end(mine).user_attrs[records.DUPLICATE_OF] == 0


def test_of_two_processes_with_the_same_config_the_first_to_write_it_trains_it() -> None:
    """Also where the other one has the lower number, because it took longer to draw."""
    first, second = objective(TWICE), objective(TWICE)
    slow = OwnTrial(first.study.ask(), first.storage)
    fast = propose(second)
    assert (slow.number, fast.trial.number) == (0, 1)
    ended = first._propose(slow)
    assert isinstance(ended, FrozenTrial)
    assert (records.outcome(ended), ended.user_attrs[records.DUPLICATE_OF]) == ("duplicate", 1)


@pytest.mark.parametrize("died", ["before it was called a duplicate", "before it ended"])
def test_a_duplicate_that_died_does_not_take_the_place_of_its_original(
    died: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The original goes on with its own seed, whichever of the two is taken up first."""
    mine = objective(TWICE)
    original = propose(mine)
    with monkeypatch.context() as patched:

        def die(*_: Any, **__: Any) -> None:
            raise KeyboardInterrupt

        owner = StudyStorage if died == "before it was called a duplicate" else OwnTrial
        patched.setattr(owner, "set_own_attributes" if owner is StudyStorage else "tell", die)
        with pytest.raises(KeyboardInterrupt):
            mine.propose()
    mine.storage.remove_session()
    for number in (0, 1):
        trial = stored().trials[number]
        assert trial.state == "RUNNING"
        mine.storage.set_back_to_waiting(trial_id_of(number), mine.storage.owner, {})
    again = objective(TWICE)
    first = propose(again)
    assert (first.trial.number, first.training) == (0, original.training)
    assert end(again).user_attrs[records.DUPLICATE_OF] == 0
    assert records.DUPLICATE_OF not in again.storage.get_trial(first.trial.id).user_attrs


def test_what_was_a_duplicate_is_trained_when_its_original_has_failed_by_the_worlds_fault(
    switches: Switches,
) -> None:
    switches.add("kill", seed=derive_seed(SEED, 0), epoch=1)
    mine = objective(TWICE)
    original = propose(mine)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(OwnTrial, "tell", lambda self, *_: self.stored())
        assert end(mine).user_attrs[records.DUPLICATE_OF] == 0
    assert mine.train(original).state == TrialState.FAIL
    mine.storage.set_back_to_waiting(trial_id_of(1), mine.storage.owner, {})
    ended = mine.train(propose(objective(TWICE)))
    assert (ended.number, records.outcome(ended)) == (1, "complete")


def trial_id_of(number: int) -> int:
    (found,) = [t for t in load_study(new_storage(), "s").get_trials() if t.number == number]
    return found._trial_id


def test_a_config_that_waits_to_go_on_is_not_trained_by_another_trial() -> None:
    mine = objective(TWICE)
    first = propose(mine)
    mine.pool.interrupt()
    mine.train(first)
    study = objective(TWICE).study
    study.ask()  # takes up the first again; the second is asked for while it has not begun
    assert end(mine).user_attrs[records.DUPLICATE_OF] == 0


# ---- Failures --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "kind", "state"),
    [
        ("diverge", "diverged", "PRUNED"),
        ("out_of_memory", "out_of_memory", "PRUNED"),
        ("raise", "crashed", "FAIL"),
        ("crash", "crashed", "FAIL"),
        ("kill", "killed", "FAIL"),
    ],
)
def test_a_failure_by_the_config_is_a_violated_constraint_and_one_by_the_world_is_not(
    switches: Switches, action: Any, kind: str, state: str
) -> None:
    switches.add(action, epoch=2)
    train()
    trial = stored().trials[0]
    assert trial.failure is not None
    assert trial.failure["kind"] == kind
    assert trial.failure["message"]
    assert (trial.state, trial.outcome, len(trial.values_by_epoch)) == (state, "failed", 2)
    assert trial.constraints == ({records.FAILED: 1.0} if state == "PRUNED" else {})
    assert list(Path("weights").glob("*")) == []


def test_a_search_space_that_raises_fails_the_trial_and_says_where() -> None:
    def space(trial: BaseTrial) -> Config:
        config = tiny_space(trial)
        if trial.number == 3:
            raise KeyError("layers")
        return config

    mine = with_space(space)
    for _ in range(3):
        mine.propose()
    ended = end(mine)
    assert ended.state == TrialState.FAIL
    failure = ended.user_attrs[records.FAILURE]
    assert failure["kind"] == "search_space"
    assert "KeyError: 'layers' (line " in failure["message"]
    assert ended.user_attrs[records.SEED] == derive_seed(SEED, 3)


@pytest.mark.filterwarnings("ignore:Choices for a categorical distribution")
def test_choices_that_cannot_be_stored_met_in_training_fail_that_trial_alone() -> None:
    """A branch that the draws before the search did not meet."""

    def space(trial: BaseTrial) -> Config:
        if trial.number == 3 and isinstance(trial, optuna.Trial) and trial.study.study_name == "s":
            trial.suggest_categorical("rare", [(16,), (32, 16)])
        return smooth_space(trial)

    record = run_study(9, definition_of(space), fidelity=ONE_EPOCH).record  # so many that the sampler models
    assert len(record.trials) == 10
    failed = [trial for trial in record.trials if trial.outcome == "failed"]
    assert [(trial.number, trial.params) for trial in failed] == [(3, {})]
    assert failed[0].failure is not None
    assert failed[0].failure["kind"] == "search_space"
    assert "'rare'" in failed[0].failure["message"]
    assert Pages().study()["trials"][3]["state"] == "Fail"


def test_enqueued_values_outside_their_range_fail_those_trials_alone() -> None:
    run_study(1, SMOOTH, fidelity=ONE_EPOCH)
    for width in (9999, [64]):
        load_study(new_storage(), "s").enqueue_trial({"width": width})
    record = run_study(9, SMOOTH, fidelity=ONE_EPOCH).record  # so many that the sampler models them
    assert [trial.number for trial in record.trials if trial.outcome == "failed"] == [1, 2]
    for trial in record.trials[1:3]:
        assert trial.failure is not None
        assert (trial.failure["kind"], "'width'" in trial.failure["message"]) == ("search_space", True)
    assert len(Pages().study()["trials"]) == len(record.trials)


def test_a_name_in_an_enqueued_trial_that_is_not_asked_for_is_warned_of() -> None:
    mine = objective()
    mine.study.enqueue_trial({"widht": 64, "width": 64})
    with pytest.warns(UserWarning, match="'widht'") as seen:
        proposal = propose(mine)
    assert len(seen) == 1
    assert proposal.trial.asked.params["width"] == 64
    propose(mine)


def test_a_failure_that_could_not_be_told_is_told_at_the_next_start(switches: Switches) -> None:
    """The process died between the attribute and the trial's end."""
    dying = objective(owner=dead_owner())
    trial = propose(dying).trial
    failure = {"kind": "out_of_memory", "message": "MemoryError"}
    dying.storage.set_user_attributes(trial.id, {records.FAILURE: failure})
    ended = end(objective())
    assert ended.number == trial.number
    assert records.outcome(ended) == "failed"
    assert ended.constraints == {records.FAILED: 1.0}
    assert ended.user_attrs[records.FAILURE] == failure
    assert switches.epochs() == []


def test_a_constraint_that_an_interrupted_attempt_has_set_is_no_error() -> None:
    definition = small_definition(
        starting_points={
            "large": {"layers": 1, "width": 4096, "norm": "none", "optimizer": "sgd", "sgd_step": 1}
        }
    )
    dying = objective(definition, owner=dead_owner())
    dying.study.ask().set_constraint(records.TOO_LARGE, 1.5)
    ended = end(objective(definition))
    assert (ended.number, records.outcome(ended)) == (0, "too_large")
    assert ended.constraints == {records.TOO_LARGE: 1.5}


def finish_elsewhere(trial: FrozenTrial) -> None:
    """Another process has set the trial back, asked for it and brought it to its end."""
    other = new_storage(owner=ELSEWHERE)
    assert other.set_back_to_waiting(trial._trial_id, trial.user_attrs[records.OWNER], {})
    study = load_study(other, "s")
    assert study.ask().number == trial.number
    study.tell(trial.number, trial.intermediate_values[trial.last_step])


def take_elsewhere(trial: FrozenTrial) -> None:
    assert new_storage(owner=ELSEWHERE).take_over(trial._trial_id, trial.user_attrs[records.OWNER])


@pytest.mark.parametrize(
    ("take", "outcome", "epochs"), [(take_elsewhere, "running", 2), (finish_elsewhere, "complete", 2)]
)
def test_a_trial_that_was_taken_over_is_dropped_at_the_next_write_and_the_worker_goes_on(
    switches: Switches, caplog: pytest.LogCaptureFixture, take: Any, outcome: str, epochs: int
) -> None:
    recorder = Recorder()
    pruner = Asked(then=lambda trial: trial.last_step == 1 and take(trial))
    mine = objective(pruner=pruner, observers=Observers([recorder]))
    ended = mine.train(propose(mine))
    trial = stored().trials[0]
    assert (records.outcome(ended), trial.outcome) == (outcome, outcome)
    assert len(trial.values_by_epoch) == epochs
    assert trial.failure is None
    assert load_study(mine.storage, "s").trials[0].user_attrs[records.OWNER] == ELSEWHERE
    assert begun(switches) == [0, 1, 2]  # it knew after the third
    mine.observers.pass_on()
    assert recorder.events[-1] == "trial_ended"
    assert "trial 0 " in caplog.text
    mine.study.pruner = NopPruner()
    assert mine.train(propose(mine)).state == TrialState.COMPLETE


@pytest.mark.parametrize("how", ["complete", "pruned", "failed", "interrupted"])
def test_the_end_of_a_trial_that_was_taken_over_is_not_told(switches: Switches, how: str) -> None:
    """Taken over after its last report."""
    last = EPOCHS - 1 if how == "complete" else 1
    mine = objective(pruner=Asked(prune_after=1 if how == "pruned" else None))
    if how == "failed":
        switches.add("crash", epoch=2)
    proposal = propose(mine)
    report = proposal.trial.report

    def report_and_lose(value: float, epoch: int) -> bool:
        may_ask = report(value, epoch)
        if epoch == last:
            assert new_storage(owner=ELSEWHERE).take_over(
                proposal.trial.id, proposal.trial.stored().user_attrs[records.OWNER]
            )
            if how == "interrupted":
                mine.pool.interrupt()
        return may_ask

    proposal.trial.report = report_and_lose  # type: ignore[method-assign]
    mine.train(proposal)
    trial = load_study(mine.storage, "s").trials[0]
    assert trial.state == TrialState.RUNNING
    assert trial.user_attrs[records.OWNER] == ELSEWHERE
    assert records.FAILURE not in trial.user_attrs
    assert list(trial.intermediate_values) == list(range(last + 1))


def test_a_trial_that_is_lost_before_its_config_is_known_is_dropped() -> None:
    def space(trial: BaseTrial) -> Config:
        if (
            isinstance(trial, optuna.Trial)
            and trial.number == 0
            and trial.user_attrs[records.OWNER] is not None
        ):
            new_storage(owner=ELSEWHERE).take_over(trial._trial_id, trial.user_attrs[records.OWNER])
        return tiny_space(trial)

    mine = with_space(space)
    assert records.outcome(end(mine)) == "running"
    assert propose(mine).trial.number == 1


# ---- Too little memory -----------------------------------------------------------------------------------


def test_where_memory_runs_out_the_trial_is_tried_once_more_in_smaller_steps(switches: Switches) -> None:
    switches.add("out_of_memory", epoch=1, times=1)
    mine = objective()
    trained: list[Training] = []
    train = mine.pool.train
    mine.pool.train = lambda training, *rest: trained.append(training) or train(training, *rest)  # type: ignore[method-assign,func-returns-value]
    ended = mine.train(propose(mine))
    assert ended.state == TrialState.COMPLETE
    assert list(ended.intermediate_values) == list(range(EPOCHS))
    assert len(ended.user_attrs[records.LOSSES]) == EPOCHS
    assert [training.accumulation for training in trained] == [1, 4]
    assert ended.user_attrs[records.ACCUMULATION] == 4
    assert begun(switches) == [0, 1, *range(EPOCHS)]


def test_an_interrupted_trial_goes_on_in_the_steps_that_it_had(switches: Switches) -> None:
    dying = objective(owner=dead_owner())
    proposal = propose(dying)
    dying.storage.set_own_attributes(proposal.trial.id, {records.ACCUMULATION: 4})
    again = propose(objective())
    assert again.trial.number == proposal.trial.number
    assert again.training.accumulation == 4
    assert proposal.training.accumulation == 1


# ---- Reports ---------------------------------------------------------------------------------------------


def test_each_epoch_is_reported_and_the_pruner_asked_after_each_but_the_last() -> None:
    recorder, pruner = Recorder(), Asked()
    mine = objective(pruner=pruner, observers=Observers([recorder]))
    ended = mine.train(propose(mine))
    assert ended.state == TrialState.COMPLETE
    assert list(ended.intermediate_values) == list(range(EPOCHS))
    assert ended.value == ended.intermediate_values[EPOCHS - 1]
    assert pruner.epochs == list(range(EPOCHS - 1))
    mine.observers.pass_on()
    assert recorder.events == ["trial_started", *["epoch"] * EPOCHS, "trial_ended"]


def test_a_pruned_trial_is_not_trained_on(switches: Switches) -> None:
    ended = train(pruner=Asked(prune_after=1))
    assert records.outcome(ended) == "pruned"
    assert list(ended.intermediate_values) == [0, 1]
    assert begun(switches) == [0, 1]


def interrupted(switches: Switches, epochs: int) -> dict[int, float]:
    """A trial that a dead process has left after so many reports; the pruner was not asked for the last."""

    def die(trial: FrozenTrial) -> None:
        if trial.last_step == epochs - 1:
            raise KeyboardInterrupt

    dying = objective(owner=dead_owner(), pruner=Asked(then=die))
    proposal = propose(dying)
    with pytest.raises(KeyboardInterrupt):
        dying.train(proposal)
    return dict(load_study(dying.storage, "s").trials[0].intermediate_values)


@pytest.mark.parametrize("epochs", range(1, EPOCHS))
def test_an_interrupted_trial_reports_each_epoch_once_and_asks_for_the_last_reported_one_again(
    switches: Switches, epochs: int
) -> None:
    reported = interrupted(switches, epochs)
    assert list(reported) == list(range(epochs))
    pruner = Asked()
    ended = train(pruner=pruner)  # a second report of an epoch would be a warning, and so an error
    assert (ended.number, ended.state) == (0, TrialState.COMPLETE)
    assert list(ended.intermediate_values) == list(range(EPOCHS))
    assert {epoch: ended.intermediate_values[epoch] for epoch in reported} == reported
    assert pruner.epochs == list(range(epochs - 1, EPOCHS - 1))
    assert begun(switches) == list(range(EPOCHS))  # it goes on from its checkpoint


def test_what_the_checkpoint_has_and_the_database_lacks_is_reported_and_the_pruner_asked(
    switches: Switches,
) -> None:
    dying = objective(owner=dead_owner())
    training = propose(dying).training
    dying.pool.train(training, lambda result: result.epoch < 2)  # three epochs, and none of them reported
    pruner = Asked()
    ended = train(pruner=pruner)
    results = curve(training)
    assert ended.intermediate_values == {result.epoch: result.accuracy for result in results}
    assert ended.user_attrs[records.LOSSES] == [result.loss for result in results]
    assert pruner.epochs == list(range(EPOCHS - 1))
    assert begun(switches) == list(range(EPOCHS))


def test_the_pruner_may_end_a_trial_at_an_epoch_of_its_checkpoint(switches: Switches) -> None:
    dying = objective(owner=dead_owner())
    dying.pool.train(propose(dying).training, lambda result: result.epoch < 2)
    ended = train(pruner=Asked(prune_after=1))
    assert records.outcome(ended) == "pruned"
    assert list(ended.intermediate_values) == [0, 1]
    assert begun(switches) == [0, 1, 2]
    assert list(Path("weights").iterdir()) == []


def test_a_value_that_comes_out_otherwise_when_trained_again_replaces_the_reported_one() -> None:
    """As on a GPU: a finished trial's value is that of its weights, and of its last report."""
    dying = objective(owner=dead_owner())
    proposal = propose(dying)
    for epoch in range(EPOCHS):
        proposal.trial.report(0.1, epoch)
    pruner = Asked()
    ended = train(pruner=pruner)
    assert pruner.epochs == []  # it has had its last report
    values = [result.accuracy for result in curve(proposal.training)]
    assert list(ended.intermediate_values.values()) == values
    assert ended.value == values[-1]


@pytest.mark.parametrize("end", ["complete", "pruned", "failed", "interrupted"])
def test_a_checkpoint_stays_only_as_long_as_the_trial_may_go_on(switches: Switches, end: str) -> None:
    mine = objective(pruner=Asked(prune_after=1 if end == "pruned" else None))
    proposal = propose(mine)
    assert proposal.training.checkpoint is not None
    path = Path(proposal.training.checkpoint)
    left = path.with_name(f".{path.name}.4711.tmp")
    path.parent.mkdir()
    left.touch()  # of a worker that was killed while it wrote
    if end == "failed":
        switches.add("kill", epoch=2)
    if end == "interrupted":
        switches.add("hang", epoch=2)
        thread = threading.Thread(target=lambda: (switches.wait_for_epochs(3), mine.pool.interrupt()))
        thread.start()
    ended = mine.train(proposal)
    assert path.exists() == (end == "interrupted")
    assert left.exists() == (end == "interrupted")
    assert ended.state.is_finished() == (end != "interrupted")
