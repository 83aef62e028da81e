"""What a study file says of its aim, and searches by another metric than accuracy."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from mc1opt.database import records, study_attributes
from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.ranking import by_expected_accuracy, distinguishable, gain
from mc1opt.database.trial_files import kept_weights
from mc1opt.display.tables import best_lines, confirmation_lines, starting_point_line
from mc1opt.errors import StudyFileError, UsageError
from mc1opt.metric import Aim, Metric, known_metric
from mc1opt.search.definition import StudyDefinition, load_definition
from mc1opt.search.incumbents import confirmation_seed, incumbents
from mc1opt.search.local import LocalSampler
from mc1opt.search.sampling import SeededSampler
from tests.support.studies import (
    DATA,
    SEED,
    facts,
    own_trial,
    run_study,
    small_definition,
    stored,
)

SPACE = """
from mc1opt.config import MLP, SGD, Config, LinearLayer

def search_space(trial):
    width = trial.suggest_categorical("width", [16, 32])
    return Config(architecture=MLP(layers=(LinearLayer(width=width),)), optimizer=SGD(learning_rate=0.1))
"""
METRIC = """
def metric(logits, labels):
    return float((logits.argmax(1) != labels).mean())
"""


def load(text: str) -> StudyDefinition:
    Path("mine.py").write_text(SPACE + text)
    return load_definition("./mine.py")


def aim_of(text: str) -> Aim:
    return load(text).aim_on(DATA)


# ---- Study files -----------------------------------------------------------------------------------------


def test_a_study_file_without_an_aim_is_judged_by_accuracy() -> None:
    assert aim_of("") == Aim()


def test_a_study_file_names_metric_weights_and_limits() -> None:
    aim = aim_of('METRIC = "log_loss"\nCLASS_WEIGHTS = "balanced"\nCONSTRAINTS = {"parameters": 300_000}')
    assert aim == Aim(metric=known_metric("log_loss"), class_weights="balanced", parameters=300_000)
    assert aim.metric.direction == "minimize"


def test_a_function_is_a_metric_of_the_file_and_may_have_a_name() -> None:
    unnamed = aim_of(METRIC + 'DIRECTION = "minimize"').metric
    assert (unnamed.name, unnamed.direction, unnamed.path) == (
        "metric",
        "minimize",
        str(Path("mine.py").resolve()),
    )
    named = aim_of(METRIC + 'DIRECTION = "minimize"\nMETRIC = "error_rate"\n# a comment').metric
    assert named.label == "error_rate"
    assert named.fingerprint == unnamed.fingerprint
    assert aim_of(METRIC.replace("return", "return 2 *") + 'DIRECTION = "minimize"').metric != unnamed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('METRIC = "f1"', 'METRIC must be "accuracy", .* or "auroc", not \'f1\'. For another'),
        ("METRIC = max", "METRIC must be"),
        ('METRIC = "log_loss"\nDIRECTION = "maximize"', "log_loss has the DIRECTION 'minimize'"),
        ('DIRECTION = "up"', 'DIRECTION must be "maximize" or "minimize", not \'up\''),
        (METRIC, "no DIRECTION. Say which values are better"),
        (METRIC + 'METRIC = "auroc"', "would hide METRIC = 'auroc'"),
        (METRIC + 'DIRECTION = "minimize"\nMETRIC = "two words"', "pattern"),
        ("metric = 3\nDIRECTION = 'minimize'", r"no function `metric\(logits, labels\)`"),
        ("CLASS_WEIGHTS = [1, 2]", r'CLASS_WEIGHTS must be "balanced" or None, not \[1, 2\]'),
        ('CONSTRAINTS = {"size": 3}', "dict with the most that a network may have of parameters or macs"),
        ("CONSTRAINTS = 3", "must be a dict"),
        ('CONSTRAINTS = {"macs": 0}', "greater than or equal to 1"),
        ('CONSTRAINTS = {"parameters": "few"}', "valid integer"),
    ],
)  # fmt: skip
def test_what_is_no_aim_is_refused_with_what_is_allowed(text: str, message: str) -> None:
    with pytest.raises(StudyFileError, match=message):
        aim_of(text)


# ---- Searches --------------------------------------------------------------------------------------------


def record_of(name: str, sampler: str = "local", **changes: Any) -> records.StudyRecord:
    """A study on learning curves whose metric says what the accuracy says, in its own direction."""
    aim = Aim(metric=known_metric(name))
    run_study(10, path=f"{name}-{sampler}.db", aim=aim, sampler=sampler, confirm=2, **changes)
    return stored(f"{name}-{sampler}.db")


def drawn(record: records.StudyRecord) -> list[Any]:
    return [(trial.params, trial.outcome, len(trial.values_by_epoch)) for trial in record.trials]


def test_a_share_that_is_as_the_accuracy_gives_the_same_study() -> None:
    plain, other = record_of("accuracy"), record_of("balanced_accuracy")
    unlike = {"metric", "accuracies", "confirmations"}
    for one, two in zip(facts(plain), facts(other), strict=True):
        assert {k: v for k, v in one.items() if k not in unlike} == {
            k: v for k, v in two.items() if k not in unlike
        }
    for one, two in zip(plain.trials, other.trials, strict=True):
        assert (one.accuracies, two.accuracies) == ([], two.values_by_epoch if two.losses else [])
        assert [e["value"] for e in one.confirmations] == [e["value"] for e in two.confirmations]
        assert all(entry["accuracy"] == entry["value"] for entry in two.confirmations)


@pytest.fixture(scope="module")
def minimized(_no_syncs: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a study by log loss: not to be changed."""
    folder = tmp_path_factory.mktemp("minimized")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        record_of("log_loss")
    return folder


@pytest.mark.parametrize(("sampler", "short_epochs"), [("tpe", 0), ("random", 1)])
def test_a_minimized_metric_gives_the_same_study_turned_round(sampler: str, short_epochs: int) -> None:
    from tests.support.studies import settings

    fidelity = settings(1).fidelity.model_copy(update={"short_epochs": short_epochs})
    plain, other = (record_of(name, sampler, fidelity=fidelity) for name in ("accuracy", "log_loss"))
    assert drawn(plain) == drawn(other)
    assert {"complete", "pruned"} <= {trial.outcome for trial in other.trials}
    for one, two in zip(plain.trials, other.trials, strict=True):
        assert one.accuracy == two.accuracy
        assert two.value is None or two.value == 1.0 - one.value
    assert [t.number for t in records.by_value(plain.trials)] == [
        t.number for t in records.by_value(other.trials)
    ]
    ranked = [[t.number for t in by_expected_accuracy(record.trials)] for record in (plain, other)]
    assert ranked[0] == ranked[1]
    kept = [sorted(kept_weights(path)) for path in sorted(Path("checkpoints").glob("*"))]
    assert all(len(each) >= 5 for each in kept)
    one, two = distinguishable(plain), distinguishable(other)
    assert one.equal == two.equal
    assert one.noise == pytest.approx(two.noise)


def test_other_programs_find_values_direction_and_names_in_the_database(minimized: Path) -> None:
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{minimized}/log_loss-local.db")
    assert study.direction == optuna.study.StudyDirection.MINIMIZE
    assert study.metric_names == ["validation log loss"]
    best = study.best_trial
    assert best.value == min(trial.value for trial in study.trials if trial.state == TrialState.COMPLETE)
    assert best.user_attrs[records.METRIC] == {"name": "log_loss", "direction": "minimize"}
    assert best.user_attrs[records.ACCURACIES][-1] == pytest.approx(1.0 - best.value)
    assert study.user_attrs[study_attributes.STUDY_METRIC] == {"name": "log_loss", "direction": "minimize"}


def test_what_is_shown_of_a_minimized_metric_is_its_own_with_the_accuracy_beside_it(minimized: Path) -> None:
    record = stored(str(minimized / "log_loss-local.db"))
    best = record.best
    lines = best_lines(record)
    assert lines[0].split()[:4] == ["trial", "log", "loss", "accuracy"]
    assert lines[1].split()[:3] == [f"#{best.number}", f"{best.value:.4f}", f"{best.accuracy:.4f}"]
    again = confirmation_lines(record)
    means = [float(line.split()[-1]) for line in again[2:] if line.startswith("#") and ":" not in line]
    assert means == sorted(means)
    assert again[-1].endswith("of log loss).")
    added = gain(record)
    assert added is None or "of log loss better than" in starting_point_line(record)


# ---- Incumbents and the local sampler --------------------------------------------------------------------


def repeated(values: list[float], again: dict[int, float | None]) -> optuna.Study:
    """A study of complete trials, some of them trained again; None where that failed."""
    study = optuna.create_study(direction="minimize")
    for number, value in enumerate(values):
        entries = []
        if number in again:
            seed = confirmation_seed(SEED, number, 0)
            failed = {"failure": {"kind": "diverged", "message": ""}} if again[number] is None else {}
            entries = [{"seed": seed, "value": again[number], **failed}]
        study.add_trial(own_trial(TrialState.COMPLETE, value, user_attrs={records.CONFIRMATIONS: entries}))
    return study


def test_every_lead_of_a_metric_of_unknown_scale_is_looked_at() -> None:
    study = repeated([90.0, 50.0, 60.0, 30.0, 40.0, 35.0], {1: 70.0, 3: None})
    found = incumbents(study, SEED, known_metric("log_loss"))
    # 50 and 70 are 60 on the mean; 60 is no lead then; the failed one counts as the worst.
    assert found.scores == {0: -90.0, 1: -60.0, 2: -60.0, 3: -60.0, 4: -40.0, 5: -35.0}
    assert found.unrepeated == [4, 5]


def test_the_local_sampler_finds_the_least_of_a_metric_with_outliers() -> None:
    own = Metric(name="cost", direction="minimize", path="/s.py", fingerprint="0")

    def cost(x: float, y: float, kind: str) -> float:
        distance = (x - 0.7) ** 2 + (y - 0.2) ** 2 + (kind != "b")
        return 1e6 if x < 0.1 else 1000.0 * distance - 5.0  # a scale of its own, below 0 as well

    reached = []
    for seed, sampler in itertools.product(range(3), ("local", "random")):
        make: Any = (
            (lambda s: LocalSampler(s, shares=False)) if sampler == "local" else optuna.samplers.RandomSampler
        )
        study = optuna.create_study(direction="minimize", sampler=SeededSampler(make, seed, 8, metric=own))
        for _ in range(40):
            trial = study.ask()
            x, y = trial.suggest_float("x", 0, 1), trial.suggest_float("y", 0, 1)
            value = cost(x, y, trial.suggest_categorical("kind", ["a", "b", "c"]))
            told = own_trial(
                TrialState.COMPLETE, value, params=trial.params, distributions=trial.distributions
            )
            study.tell(trial, state=TrialState.FAIL)
            study.add_trial(told)
        reached.append(min(t.value for t in study.trials if t.state == TrialState.COMPLETE))
    local, random = reached[::2], reached[1::2]
    assert np.mean(local) < np.mean(random)
    assert max(local) < 30.0


# ---- Limits ----------------------------------------------------------------------------------------------


def test_too_many_parameters_are_too_large_before_training() -> None:
    limit = 60_000
    run_study(4, small_definition(starting_points={}), aim=Aim(parameters=limit), sampler="random")
    record = stored()
    large = [trial for trial in record.trials if trial.outcome == "too_large"]
    assert {trial.parameters > limit for trial in large} == {True}
    assert all(t.parameters <= limit for t in record.trials if t.values_by_epoch)
    assert any(trial.constraints.get(records.TOO_LARGE, 0) <= 0 for trial in large)
    for trial in large:
        assert not trial.values_by_epoch
        assert trial.constraints[records.TOO_MANY_PARAMETERS] == trial.parameters / limit - 1.0
    assert record.to_json()["constraints"] == {"parameters": limit}


def test_a_limit_of_multiply_accumulates_holds_beside_max_macs() -> None:
    for given, limit in (({"macs": 500_000}, 500_000), ({"macs": 10**9}, 1_000_000)):
        path = f"{limit}.db"
        run_study(4, aim=Aim(**given), path=path, max_macs=1_000_000, sampler="random")
        trained = [trial.macs for trial in stored(path).trials if trial.values_by_epoch]
        assert max(trained) <= limit


# ---- Resuming --------------------------------------------------------------------------------------------


def test_a_study_goes_on_with_the_same_aim_and_with_no_other() -> None:
    aim = Aim(metric=known_metric("log_loss"))
    run_study(1, aim=aim)
    run_study(2, aim=aim)
    assert len(stored().trials) >= 2
    for what, other in {
        "the metric": Aim(metric=known_metric("auroc")),
        "what classes weigh": aim.model_copy(update={"class_weights": "balanced"}),
        "the limit of a network": aim.model_copy(update={"parameters": 10**7}),
    }.items():
        with pytest.raises(UsageError, match=f"{what}.* differs"):
            run_study(3, aim=other)


def test_a_study_of_before_there_were_metrics_is_one_by_accuracy() -> None:
    run_study(1)
    with load_study(open_storage("s.db", create=False), "s")._storage._backend.engine.begin() as connection:
        from sqlalchemy import text

        connection.execute(
            text("DELETE FROM study_user_attributes WHERE key LIKE 'mc1opt_metric%' OR key LIKE 'mc1opt_c%'")
        )
    assert stored().metric.is_accuracy
    run_study(2)
    with pytest.raises(UsageError, match=r"the metric differs: stored .*accuracy.*given .*auroc"):
        run_study(3, aim=Aim(metric=known_metric("auroc")))


def test_the_file_of_an_own_metric_may_move_and_is_found_at_the_new_place() -> None:
    text = METRIC + 'DIRECTION = "minimize"\nMETRIC = "cost"'
    run_study(1, aim=aim_of(text))
    Path("elsewhere").mkdir()
    Path("elsewhere/mine.py").write_text(Path("mine.py").read_text() + "# moved")
    run_study(2, aim=load_definition("elsewhere/mine.py").aim_on(DATA))
    assert stored().metric.path == str(Path("elsewhere/mine.py").resolve())
    with pytest.raises(UsageError, match="the metric differs"):
        run_study(3, aim=aim_of(text.replace("return", "return 2 *")))
