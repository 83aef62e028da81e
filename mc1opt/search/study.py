"""Creates a study, or resumes it if everything that defines it is the same."""

import hashlib
import itertools
import json
import shlex
import warnings
from collections.abc import Iterable, Mapping
from typing import Any

import optuna
from optuna.exceptions import DuplicatedStudyError
from optuna.trial import FixedTrial

from mc1opt.database import records, study_attributes
from mc1opt.database.identity import keep_folder, name_folder
from mc1opt.database.location import storage_option
from mc1opt.database.storage import StudyStorage
from mc1opt.dataset import DataSet, Task
from mc1opt.errors import StudyFileError, UsageError
from mc1opt.fields import canonical_json
from mc1opt.metric import ACCURACY, Metric
from mc1opt.program import program
from mc1opt.search.definition import StudyDefinition
from mc1opt.search.pruning import make_pruner
from mc1opt.search.sampling import make_sampler
from mc1opt.search.settings import SearchSettings
from mc1opt.search.warm_start import for_sampler, known_trials, starting_points, taken_over

SPACE_DRAWS = 64
"""Random draws on which two search spaces are compared."""


def space_fingerprint(definition: StudyDefinition) -> str:
    """A hash of a search space: of the configs and distributions of fixed random draws.

    It depends on ranges, choices, and which draws are infeasible; not on comments, formatting or names of
    functions.

    Raises:
        StudyFileError: the search space raises, no draw is feasible, or the starting points or the grid do
            not fit.
    """
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    digest = hashlib.sha256()
    infeasible = []
    for _ in range(SPACE_DRAWS):
        trial = study.ask()
        try:
            digest.update(canonical_json(definition.config(trial)).encode())
        except optuna.TrialPruned as reason:
            infeasible.append(str(reason))
            digest.update(b"infeasible;")
        for name, distribution in sorted(trial.distributions.items()):
            digest.update(f"{name}={optuna.distributions.distribution_to_json(distribution)};".encode())
    if len(infeasible) == SPACE_DRAWS:
        said = f" (the last one: {infeasible[-1]})" if infeasible[-1] else ""
        raise StudyFileError(
            f"the search space of {definition.path} raised TrialPruned for each of {SPACE_DRAWS} random "
            f"draws{said}, so a search would train nothing. Suggest only what fits together."
        )
    for name, params in definition.starting_points.items():
        what = f"starting point {name!r}"
        _warn_of_no_effect(definition, what, params.keys() - _asked_for(definition, what, params))
    if definition.grid:
        digest.update(json.dumps(definition.grid, sort_keys=True).encode())
        asked: set[str] = set()
        for values in itertools.product(*definition.grid.values()):
            point = dict(zip(definition.grid, values, strict=True))
            asked |= _asked_for(definition, f"point {point} of GRID", point)
        _warn_of_no_effect(definition, "GRID", definition.grid.keys() - asked)
    return digest.hexdigest()[:16]


def _asked_for(definition: StudyDefinition, what: str, params: Mapping[str, Any]) -> set[str]:
    """The names of the parameters that the search space suggests at a point."""
    trial = FixedTrial(dict(params))
    try:
        definition.config(trial)
    except optuna.TrialPruned:  # infeasible; which further parameters it would suggest is unknown
        return set(params)
    except StudyFileError as error:
        raise StudyFileError(f"the {what} of {definition.path} does not fit: {error}") from error
    return set(trial.params)


def _warn_of_no_effect(definition: StudyDefinition, what: str, names: Iterable[str]) -> None:
    for name in sorted(names):
        warnings.warn(
            f"{name!r} in {what} of {definition.path} has no effect: the search space does not suggest it "
            "there.",
            stacklevel=1,
        )


def open_study(
    definition: StudyDefinition, settings: SearchSettings, storage: StudyStorage, data: DataSet
) -> optuna.Study:
    """Creates a study with its starting points, or loads the study of that name if it is the same.

    A new study also takes over what `settings.begin_from` knows; see `mc1opt.search.warm_start`.

    Raises:
        UsageError: a study of that name has another fidelity, data, seed, limit, metric or search space, or
            was begun from another one; or there is nothing to begin from.
        StorageError: there is no study to begin from.
    """
    wanted = {
        study_attributes.STUDY_DEFINITION: definition.name,
        study_attributes.STUDY_SEED: settings.seed,
        study_attributes.STUDY_MAX_MACS: settings.max_macs,
        records.FIDELITY: settings.fidelity.model_dump(),
        records.DATA: {"name": data.name, "sha256": data.sha256},
        study_attributes.STUDY_SPACE: space_fingerprint(definition),
        study_attributes.STUDY_METRIC: settings.aim.metric.identity,
        study_attributes.STUDY_CLASS_WEIGHTS: settings.aim.class_weights,
        study_attributes.STUDY_CONSTRAINTS: settings.aim.constraints,
    }
    task = data.model_dump(mode="json", include=set(Task.model_fields))
    metric = settings.aim.metric
    how = {
        records.TASK: task,
        study_attributes.STUDY_SAMPLER: settings.sampler,
        study_attributes.STUDY_PRUNER: settings.pruner,
        study_attributes.STUDY_METRIC_FILE: metric.path,
    }
    pruner = make_pruner(settings.pruner, settings.fidelity.short_epochs, metric)
    with storage.exclusive():
        taken = taken_over(definition, settings, storage, data)
        try:
            study = optuna.create_study(
                storage=storage, study_name=settings.study, direction=metric.direction, pruner=pruner
            )
        except DuplicatedStudyError:
            study = optuna.load_study(study_name=settings.study, storage=storage, pruner=pruner)
        stored = study.user_attrs
        if study_attributes.STUDY_STARTED in stored:
            begun = stored.get(study_attributes.STUDY_FROM, {}).get("study")
            wanted[study_attributes.STUDY_FROM] = settings.begin_from or begun
            _refuse_another_study(
                settings.study, stored | {study_attributes.STUDY_FROM: begun}, wanted, storage.place
            )
            keep_folder(study)
            for name, chosen in how.items():  # these may change between starts
                if stored.get(name) != chosen:
                    study.set_user_attr(name, chosen)
        else:
            _complete(study, definition, metric, storage, taken | wanted | how)
    seen = for_sampler(known_trials(study.user_attrs), definition, metric)
    study.sampler = make_sampler(settings.sampler, settings.seed, definition.grid, metric, seen)
    return study


def _complete(
    study: optuna.Study,
    definition: StudyDefinition,
    metric: Metric,
    storage: StudyStorage,
    attributes: Mapping[str, Any],
) -> None:
    """Gives a new study its attributes and its starting points, or those of them that it lacks."""
    enqueued = study.get_trials(deepcopy=False)
    foreign = [each.name.lower() for each in study.directions] != [metric.direction] or any(
        records.STARTING_POINT not in trial.user_attrs for trial in enqueued
    )
    if foreign:
        raise UsageError(
            f"study {study.study_name!r} is not one of mc1opt's. Choose another name with --name."
        )
    name_folder(study, storage)
    for key, value in attributes.items():
        study.set_user_attr(key, value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.set_metric_names([f"validation {metric.label}"])
    for name, params in list(starting_points(definition, study.user_attrs).items())[len(enqueued) :]:
        study.enqueue_trial(dict(params), user_attrs={records.STARTING_POINT: name})
    # Last: if this process dies earlier, the next start completes the study.
    study.set_user_attr(study_attributes.STUDY_STARTED, True)


def _refuse_another_study(name: str, stored: dict[str, Any], wanted: dict[str, Any], place: str) -> None:
    words = {
        study_attributes.STUDY_DEFINITION: "the study definition",
        study_attributes.STUDY_SEED: "the seed",
        study_attributes.STUDY_MAX_MACS: "--max-macs",
        records.FIDELITY: "the fidelity",
        records.DATA: "the data",
        study_attributes.STUDY_SPACE: "the search space, or the code of networks that it builds,",
        study_attributes.STUDY_METRIC: "the metric",
        study_attributes.STUDY_CLASS_WEIGHTS: "what classes weigh (CLASS_WEIGHTS)",
        study_attributes.STUDY_CONSTRAINTS: "the limit of a network (CONSTRAINTS)",
        study_attributes.STUDY_FROM: "--from",
    }
    before = {study_attributes.STUDY_METRIC: ACCURACY.identity, study_attributes.STUDY_CONSTRAINTS: {}}
    for key, what in words.items():
        same = stored.get(key, before.get(key)) == wanted[key]
        if key == records.DATA and isinstance(stored.get(key), dict):
            same = stored[key].get("name") == wanted[key]["name"]  # the hashed bytes have changed once
        if not same:
            values = ""
            if key != study_attributes.STUDY_SPACE:
                there = json.dumps(stored.get(key, before.get(key)))
                values = f": stored {there}, given {json.dumps(wanted[key])}"
            delete = f"{program()} studies delete {shlex.quote(name)}{storage_option(place)}"
            raise UsageError(
                f"study {name!r} exists, and {what} differs{values}. Trials of both could not be compared.\n"
                f"To start another study, add:      --name {shlex.quote(f'{name}-2')}\n"
                f"To delete the stored one, run:    {delete}"
            )
