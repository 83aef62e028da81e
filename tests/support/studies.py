"""Searches on learning curves: small search spaces in which everything happens, and how to run them."""

import contextlib
import dataclasses
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna import TrialPruned
from optuna.distributions import BaseDistribution, FloatDistribution, IntDistribution
from optuna.trial import BaseTrial, FrozenTrial, TrialState, create_trial

from mc1opt.config import MLP, SGD, Adam, Config, LinearLayer, config_id, config_to_json
from mc1opt.database import ownership, records
from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.ownership import this_owner
from mc1opt.database.records import StudyRecord, TrialRecord, study_record
from mc1opt.database.storage import StudyStorage
from mc1opt.dataset import DataSet
from mc1opt.search.definition import StudyDefinition
from mc1opt.search.observers import Observer, SearchEnded
from mc1opt.search.run import run_search
from mc1opt.search.settings import SearchSettings
from mc1opt.seeds import derive_seed
from mc1opt.spec import Fidelity
from mc1opt.workers.pool import Pool
from mc1opt.workers.stop import StopFlag
from tests.support.curves import CurvePool, Switches

DATA = DataSet(name="curves", folder="", sha256="0" * 64, train_images=50_000, validation_images=5_000)
SEED = 3
EPOCHS = 4
ONE_EPOCH = Fidelity(train_images=1000, epochs=1)
MAX_MACS = 6_000_000
"""The widest networks of the small search space are too large."""
STARTING_POINTS = {
    "narrow": {"layers": 1, "width": 16, "norm": "none", "optimizer": "sgd", "sgd_step": 4},
    "wide": {"layers": 2, "width": 256, "norm": "batch", "optimizer": "adam", "adam_step": 2},
}
SECONDS = 60.0
"""How long anything may take that takes some seconds at most."""


# ---- Study definitions -----------------------------------------------------------------------------------


def small_space(trial: BaseTrial) -> Config:
    """Few enough configs for duplicates; of the widths one is too large; a branch for each optimizer."""
    layers = trial.suggest_int("layers", 1, 3)
    width = trial.suggest_categorical("width", [16, 64, 256, 1024, 4096])
    norm = trial.suggest_categorical("norm", ["none", "batch"])
    if trial.suggest_categorical("optimizer", ["sgd", "adam"]) == "sgd":
        optimizer: SGD | Adam = SGD(learning_rate=10.0 ** (-trial.suggest_int("sgd_step", 0, 7) / 2))
    else:
        optimizer = Adam(learning_rate=10.0 ** (-trial.suggest_int("adam_step", 2, 9) / 2))
    layer = LinearLayer(width=width, norm=norm)
    return Config(architecture=MLP(layers=(layer,) * layers), optimizer=optimizer, batch_size=64)


def tiny_space(trial: BaseTrial) -> Config:
    """Three configs, and none of them too large."""
    width = trial.suggest_categorical("width", [16, 32, 64])
    return Config(
        architecture=MLP(layers=(LinearLayer(width=width),)),
        optimizer=SGD(learning_rate=0.1),
        batch_size=64,
    )


def choosy_space(trial: BaseTrial) -> Config:
    """As `smooth_space`, but a third of the combinations is no network."""
    config = smooth_space(trial)
    if config.batch_size > 200:
        raise TrialPruned(f"batches of {config.batch_size} are too large")
    return config


def smooth_space(trial: BaseTrial) -> Config:
    """As good as no duplicates: the learning rate has a range. It matters most, the batch size not at all."""
    return Config(
        architecture=MLP(layers=(LinearLayer(width=trial.suggest_int("width", 64, 512, log=True)),)),
        optimizer=SGD(learning_rate=trial.suggest_float("learning_rate", 1e-3, 1.0, log=True)),
        batch_size=trial.suggest_int("batch_size", 16, 512, log=True),
    )


def definition_of(search_space: Any, **changes: Any) -> StudyDefinition:
    """A study definition; `changes` are further fields of it."""
    fields = {
        "name": "small",
        "path": Path(__file__),
        "description": "",
        "search_space": lambda trial, _data: search_space(trial),
    }
    return StudyDefinition(**(fields | changes))


def small_definition(**changes: Any) -> StudyDefinition:
    """`small_space` with two starting points."""
    return definition_of(small_space, **({"starting_points": STARTING_POINTS} | changes))


def many_starting_points(count: int) -> StudyDefinition:
    """`smooth_space` with so many starting points, none the same."""
    points = {f"point {i}": {"width": 64, "learning_rate": 0.1, "batch_size": 16 + i} for i in range(count)}
    return definition_of(smooth_space, starting_points=points)


def fail_some(switches: Switches) -> None:
    """Four of the first trials of a study fail, each in its own way."""
    # Before the pruner may end any, and before the sampler models anything.
    switches.add("diverge", seed=derive_seed(SEED, 2), epoch=2)
    switches.add("out_of_memory", seed=derive_seed(SEED, 3), epoch=0)
    switches.add("crash", seed=derive_seed(SEED, 4), epoch=1)
    switches.add("kill", seed=derive_seed(SEED, 5), epoch=3)


def wait_until_begun(switches: Switches, number: int, epoch: int) -> None:
    """Waits until a trial has begun an epoch."""
    deadline = time.monotonic() + SECONDS
    seed = derive_seed(SEED, number)
    while (seed, epoch) not in {(begun["seed"], begun["epoch"]) for begun in switches.epochs()}:
        assert time.monotonic() < deadline, f"trial {number} has not begun epoch {epoch}"
        time.sleep(0.005)


WHOLE = 16
"""Trials of the study to which others are compared: enough for everything to happen in it."""


class Clock:
    """Stands in for the module `time` of a deadline: real time, until it is set forward."""

    def __init__(self) -> None:
        self._forward = 0.0

    def set_forward(self, seconds: float) -> None:
        """From now on it is so much later."""
        self._forward += seconds

    def monotonic(self) -> float:
        """As `time.monotonic`."""
        return time.monotonic() + self._forward


# ---- Trials that nobody trained --------------------------------------------------------------------------


def own_attributes() -> dict[str, Any]:
    """What a finished trial of mc1opt's always has."""
    config = Config(
        architecture=MLP(layers=(LinearLayer(width=16),)), optimizer=SGD(learning_rate=0.1), batch_size=64
    )
    return {
        records.OWNER: this_owner(),
        records.CONFIG: config_to_json(config),
        records.CONFIG_ID: config_id(config),
    }


def own_trial(state: TrialState, value: float | None = None, **fields: Any) -> FrozenTrial:
    """A stored trial as mc1opt writes it; `fields` are further ones of `create_trial`."""
    attributes = own_attributes() | fields.pop("user_attrs", {})
    fields.setdefault("intermediate_values", {} if value is None else {0: value})
    return create_trial(state=state, value=value, user_attrs=attributes, **fields)


SMOOTH_RANGES: dict[str, BaseDistribution] = {
    "width": IntDistribution(64, 512, log=True),
    "learning_rate": FloatDistribution(1e-3, 1.0, log=True),
    "batch_size": IntDistribution(16, 512, log=True),
}
DRAWN = {"width": 100, "learning_rate": 0.5, "batch_size": 64}


def write_foreign_trials(study: optuna.Study) -> None:
    """What other programs write into a study, in every state but WAITING; FOREIGN trials."""
    attributes = own_attributes()
    newer = {**attributes[records.CONFIG], "schema_version": 99}
    for trial in (
        create_trial(value=0.99),
        create_trial(value=0.98, params=DRAWN, distributions=SMOOTH_RANGES),
        create_trial(state=TrialState.PRUNED, intermediate_values={0: 0.97, 1: 0.98}),
        create_trial(state=TrialState.FAIL),
        create_trial(state=TrialState.RUNNING),
        create_trial(value=0.99, user_attrs=attributes),  # not its last report
        own_trial(TrialState.COMPLETE, 0.96, user_attrs={records.CONFIG: "mlp"}),
        own_trial(TrialState.COMPLETE, 0.96, user_attrs={records.CONFIG: {}}),
        own_trial(TrialState.COMPLETE, 0.96, user_attrs={records.CONFIRMATIONS: 3}),
        own_trial(TrialState.COMPLETE, 0.95, user_attrs={records.CONFIG: newer}),
    ):
        study.add_trial(trial)


FOREIGN = 10


# ---- Running ---------------------------------------------------------------------------------------------


def settings(trials: int, **changes: Any) -> SearchSettings:
    """Settings of a search without confirmations; `changes` are further fields."""
    fields: dict[str, Any] = {
        "study": "s",
        "trials": trials,
        "fidelity": Fidelity(train_images=1000, epochs=EPOCHS),
        "seed": SEED,
        "device": "cuda",  # curves need none, and no CPU's speed is measured before the start
        "max_macs": MAX_MACS,
        "confirm": 0,
    }
    return SearchSettings(**(fields | changes))


def dead_owner() -> dict[str, Any]:
    """A process that has ended: its id belongs to another one now, which started at another time."""
    return {**this_owner(), "started": -1}


def living_owner() -> dict[str, Any]:
    """Another process of this machine that is alive: the parent of this one."""
    parent = os.getppid()
    return {**this_owner(), "pid": parent, "started": ownership._start_time(parent)}


ELSEWHERE: dict[str, Any] = {**this_owner(), "host": "elsewhere.example"}
"""A process on another machine."""


def new_storage(path: str = "s.db", owner: dict[str, Any] | None = None) -> StudyStorage:
    """The study database, with this process as owner if none is given."""
    return open_storage(path, create=True, owner=owner or this_owner(), threads=4)


def run_study(
    trials: int,
    definition: StudyDefinition | None = None,
    *,
    workers: int = 1,
    pool: Pool | None = None,
    path: str = "s.db",
    storage: StudyStorage | None = None,
    observers: tuple[Observer, ...] = (),
    stop: StopFlag | None = None,
    data: DataSet = DATA,
    **changes: Any,
) -> SearchEnded:
    """A search on learning curves, with a real database and in as many threads as `workers`."""
    return run_search(
        definition or small_definition(),
        settings(trials, **changes),
        storage or new_storage(path),
        data,
        pool or CurvePool(workers),
        observers=observers,
        stop=stop,
    )


def without_syncs(connection: Any, _record: Any) -> None:
    """For SQLAlchemy's event "connect". Without syncs, databases outlive killed processes, not power cuts."""
    if type(connection).__module__.startswith("sqlite3"):
        connection.execute("PRAGMA synchronous = OFF")


# ---- Looking at what came of it --------------------------------------------------------------------------


def stored(path: str = "s.db", name: str = "s") -> StudyRecord:
    """The record of a stored study, read anew."""
    return study_record(load_study(open_storage(path, create=False), name))


UNLIKE = {"seconds", "epoch_seconds", "interrupted", "started", "ended"}
"""Fields of a trial's record that may differ between a study and its repetition."""


def facts(record: StudyRecord) -> list[dict[str, Any]]:
    """What must be the same in a study and in its repetition, trial by trial."""
    return [
        {key: value for key, value in dataclasses.asdict(trial).items() if key not in UNLIKE}
        for trial in record.trials
    ]


def counted(record: StudyRecord) -> list[TrialRecord]:
    """The trials that count towards the total, told from how they ended alone."""
    return [
        trial
        for trial in record.trials
        if trial.state == "COMPLETE"
        or (trial.state == "PRUNED" and trial.values_by_epoch and not trial.failure)
    ]


@contextlib.contextmanager
def held(storage: StudyStorage, trial_id: int) -> Iterator[None]:
    """While the block runs, this process trains the trial."""
    storage.hold(trial_id)
    try:
        yield
    finally:
        storage.release(trial_id)
