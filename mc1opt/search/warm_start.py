"""What a study that is begun `--from` another one knows from its first draw on.

A config is the identity: a trial of the other study fits if the search space of the new one gives its config
again, from its parameters. A parameter that is new gets the value that leaves the config as it was, if it has
one. What fits informs the sampler where values of both studies mean the same, and the best of it are starting
points. All of it is copied into the new study when that is created, and does not change any more.

Not here: trials. What another study has trained is none of this one's, until it is trained here.
"""

import json
import math
import shlex
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.trial import FixedTrial, FrozenTrial

from mc1opt.config import Config, config_from_json, config_id
from mc1opt.database import records, study_attributes
from mc1opt.database.opening import load_study
from mc1opt.database.ranking import by_expected_accuracy
from mc1opt.database.storage import StudyStorage
from mc1opt.database.study_attributes import BegunFrom
from mc1opt.dataset import DataSet
from mc1opt.describe import describe_fidelity
from mc1opt.errors import StudyFileError, UsageError
from mc1opt.fields import canonical_json
from mc1opt.metric import Metric
from mc1opt.models.cost import cost
from mc1opt.search.definition import StudyDefinition
from mc1opt.search.incumbents import incumbents
from mc1opt.search.json_values import is_in
from mc1opt.search.local import NUMBER, STUDY
from mc1opt.search.sampling import GRID_SAMPLER, seen_trial
from mc1opt.search.settings import SearchSettings
from mc1opt.text import few

STARTING_POINTS = 3
"""Best trials of the other study that are trained first, at most: as many as are confirmed by default."""
NAMED = 3
"""Most parameters that a reason names."""


@dataclass(frozen=True)
class KnownTrial:
    """A trained trial of another study."""

    study: str
    """The study that trained it: the other one may have begun from it."""
    number: int
    params: dict[str, Any]
    config: dict[str, Any]
    """See `mc1opt.config.config_to_json`."""
    value: float | None
    """What the sampler of that study took it to be worth; None of a pruned trial."""
    reports: list[float]
    """Values by epoch."""


def taken_over(
    definition: StudyDefinition, settings: SearchSettings, storage: StudyStorage, data: DataSet
) -> dict[str, Any]:
    """The attributes in which a new study keeps what it takes over from `settings.begin_from`.

    Empty without such a study, and for a study that has them already, or has begun without.

    Raises:
        UsageError: that study is the new one itself or no study of mc1opt's, or a grid is to be searched.
        StorageError: there is no such study.
    """
    name = settings.begin_from
    if name is None:
        return {}
    if name == settings.study:
        raise UsageError(
            f"--from {name!r} is the study itself. Give the new one another name: --name "
            f"{shlex.quote(f'{name}-2')}"
        )
    stored = {each.study_name: each.user_attrs for each in storage.get_all_studies()}.get(settings.study, {})
    if stored.keys() & {study_attributes.STUDY_FROM, study_attributes.STUDY_STARTED}:
        return {}
    if settings.sampler == GRID_SAMPLER:
        raise UsageError(
            "--sampler grid tries every point of its grid, whatever is known. Leave --from out, or choose "
            "another sampler."
        )
    source = load_study(storage, name)
    if study_attributes.STUDY_STARTED not in source.user_attrs:
        raise UsageError(f"--from {name!r} is not one of mc1opt's studies. Name another one.")
    begun, known = begin_from(source, definition, settings, data)
    # In this order: whoever finds the second one, finds both.
    return {
        study_attributes.STUDY_KNOWN: [asdict(trial) for trial in known],
        study_attributes.STUDY_FROM: asdict(begun),
    }


def begin_from(
    source: optuna.Study, definition: StudyDefinition, settings: SearchSettings, data: DataSet
) -> tuple[BegunFrom, list[KnownTrial]]:
    """What a new study takes over from `source`: the account of it, and what its sampler will see."""
    differs = _differences(records.study_record(source), settings, data)
    trials = list(_trials(source))
    misfits: Counter[str] = Counter()
    fitting = []
    fit = _Fit(definition, settings, data, same=not differs)
    for trial in trials:
        found = fit.params(trial)
        if isinstance(found, str):
            misfits[found] += 1
        else:
            fitting.append(replace(trial, params=found))
    best: dict[str, KnownTrial] = {}
    for trial in fitting:
        if trial.value is not None:
            best.setdefault(_identity(trial), trial)
    begun = BegunFrom(
        study=source.study_name,
        trials=len(trials),
        fit=len(fitting),
        misfits=dict(misfits.most_common()),
        differs=differs,
        starting_points={
            f"#{trial.number} of {trial.study}": trial.params
            for trial in list(best.values())[:STARTING_POINTS]
        },
    )
    return begun, [] if differs else fitting


def _differences(record: records.StudyRecord, settings: SearchSettings, data: DataSet) -> dict[str, str]:
    """Why values of a study mean something else than those of a new one: what differs -> what it is there."""
    aim, images = record.aim, (record.data or {}).get("name")
    fidelity = "unknown" if record.fidelity is None else describe_fidelity(record.fidelity)
    there = {
        "images": (images == data.name, str(images)),
        "fidelity": (record.fidelity == settings.fidelity, fidelity),
        "metric": (aim.metric.identity == settings.aim.metric.identity, aim.metric.label),
        "class weights": (aim.class_weights == settings.aim.class_weights, aim.class_weights or "none"),
    }
    return {what: value for what, (same, value) in there.items() if not same}


def _trials(source: optuna.Study) -> Iterator[KnownTrial]:
    """The trained trials of a study and what it knew itself, the complete ones with the best first."""
    record = records.study_record(source)
    worth = incumbents(source, record.seed or 0, record.metric).scores
    counted = (trial for trial in record.trials if trial.outcome in ("complete", "pruned"))
    trained = {trial.number: trial for trial in counted if trial.values_by_epoch}
    ranked = [trial.number for trial in by_expected_accuracy(trained.values())]
    for number in dict.fromkeys([*ranked, *trained]):
        trial = trained[number]
        value = record.metric.score(worth[number]) if number in worth else None
        yield KnownTrial(
            source.study_name, number, trial.params, trial.config or {}, value, trial.values_by_epoch
        )
    yield from known_trials(source.user_attrs)


def _identity(trial: KnownTrial) -> str:
    return config_id(config_from_json(trial.config))


def known_trials(attributes: Mapping[str, Any]) -> list[KnownTrial]:
    """What a study knew when it was created, by its user attributes."""
    return [KnownTrial(**trial) for trial in attributes.get(study_attributes.STUDY_KNOWN, [])]


def starting_points(
    definition: StudyDefinition, attributes: Mapping[str, Any]
) -> dict[str, Mapping[str, Any]]:
    """The starting points of a new study: the best of the other one, and those of its definition.

    Of the latter not those that the other study has trained: what they are worth is known.

    Args:
        definition: the definition.
        attributes: the user attributes of the new study.
    """
    begun = study_attributes.begun_from(attributes)
    if begun is None:
        return dict(definition.starting_points)
    points: dict[str, Mapping[str, Any]] = {**begun.starting_points}
    trained = set(map(_identity, known_trials(attributes)))
    for name, params in definition.starting_points.items():
        config = _Replay(params, {}).config(definition)
        if config is None or config_id(config) not in trained:
            points[name] = params
    return points


def for_sampler(
    known: Sequence[KnownTrial], definition: StudyDefinition, metric: Metric
) -> list[FrozenTrial]:
    """The trials as a `SeededSampler` of the new study sees them; see `_for_sampler` there."""
    seen: list[FrozenTrial] = []
    for trial in known:
        replay = _Replay(trial.params, {})
        replay.config(definition)
        value = trial.reports[-1] if trial.value is None else trial.value
        seen.append(
            seen_trial(
                len(seen) - len(known),  # before all of the study's own
                value=metric.score(value),
                params=replay.params,
                distributions=replay.distributions,
                intermediate_values={epoch: metric.score(each) for epoch, each in enumerate(trial.reports)},
                user_attrs={NUMBER: trial.number, STUDY: trial.study},
            )
        )
    return seen


# ---- Which trials fit ------------------------------------------------------------------------------------


class _Replay(FixedTrial):
    """A trial with given parameters, in which one that is not given gets a likely value.

    Args:
        given: the parameters.
        likely: values to take where they are possible, by parameter; else it is the first candidate.
    """

    def __init__(self, given: Mapping[str, Any], likely: Mapping[str, Any]) -> None:
        super().__init__({})
        self._given = given
        self._likely = likely
        self.misfit = ""
        """Which given value is not possible, in words; empty for none."""

    def config(self, definition: StudyDefinition) -> Config | None:
        """The config; None if the parameters give none."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # a study file's own: they were shown when it was checked
            try:
                return definition.config(self)
            except optuna.TrialPruned:
                self.misfit = self.misfit or "infeasible"
            except StudyFileError:
                self.misfit = self.misfit or "without a config"
        return None

    def _suggest(self, name: str, distribution: BaseDistribution) -> Any:
        value = self._given.get(name, candidates(distribution, self._likely.get(name))[0])
        if not is_in(value, distribution):
            choice = isinstance(distribution, CategoricalDistribution)
            self.misfit = f"with a choice of {name} that is gone" if choice else f"with {name} out of range"
            raise ValueError(self.misfit)
        self._params[name] = distribution.to_external_repr(distribution.to_internal_repr(value))
        return super()._suggest(name, distribution)


def candidates(distribution: Any, likely: Any, numbers: Iterable[float] = ()) -> list[Any]:
    """The values of a new parameter that may leave a config as it was, the likely one first.

    All choices; of a range its ends, one of which often means none of it, and what stands in the config.
    """
    if isinstance(distribution, CategoricalDistribution):
        found = list(distribution.choices)
    else:
        found = [distribution.low, distribution.high, *(n for n in numbers if is_in(n, distribution))]
    return sorted(found, key=lambda value: value != likely)  # stable


class _Fit:
    """Finds the parameters that a known trial has in another search space.

    Args:
        definition: of that search space.
        settings: limit the size of networks.
        data: the images.
        same: whether the config must be the same; else that there is one.
    """

    def __init__(
        self, definition: StudyDefinition, settings: SearchSettings, data: DataSet, same: bool
    ) -> None:
        self._definition = definition
        self._settings = settings
        self._data = data
        self._same = same
        self._likely: dict[str, Any] = {}
        """The values of new parameters that fitted last: the next trial needs no search."""

    def params(self, trial: KnownTrial) -> dict[str, Any] | str:
        """The parameters in the search space; or why there are none, in words that follow a count."""
        before = config_from_json(trial.config)
        wanted = _leaves(json.loads(canonical_json(before)))
        given = dict(trial.params)
        while True:
            replay = _Replay(given, self._likely)
            config = replay.config(self._definition)
            left = [name for name in replay.params if name not in given]
            if config is not None and (config_id(config) == config_id(before) or not (self._same or left)):
                break
            if not left:
                return replay.misfit or self._difference(trial.params, replay.params)
            # One after the other: parameters mostly decide about different parts of a config.
            numbers = dict.fromkeys(each for each in wanted.values() if type(each) in (int, float))
            values = candidates(replay.distributions[left[0]], self._likely.get(left[0]), numbers)
            differences = [self._differences(given | {left[0]: value}, wanted) for value in values]
            given[left[0]] = values[differences.index(min(differences))]
        try:
            size = cost(config.architecture, self._data.shape)
        except StudyFileError:
            return "whose network cannot be built"
        if self._settings.excess(size):
            return "too large"
        self._likely |= {name: value for name, value in replay.params.items() if name not in trial.params}
        return replay.params

    def _differences(self, given: Mapping[str, Any], wanted: dict[str, Any]) -> float:
        """In how many places the config of some parameters is another than the wanted one."""
        config = _Replay(given, self._likely).config(self._definition)
        if config is None:
            return math.inf
        found = _leaves(json.loads(canonical_json(config)))
        return sum(1 for place in found | wanted if found.get(place, ...) != wanted.get(place, ...))

    def _difference(self, there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
        """Why parameters of a known trial give another config."""
        if new := _names(here.keys() - there.keys()):
            return f"without {new}, which no value leaves as before"
        if gone := _names(there.keys() - here.keys()):
            return f"with {gone}, not suggested any more"
        return "with another config of the same parameters"


def _names(names: Iterable[str]) -> str:
    return few(sorted(names), NAMED)


def _leaves(value: Any, place: str = "") -> dict[str, Any]:
    """The numbers, strings and so on of nested JSON by their places."""
    if isinstance(value, dict | list):
        entries: Sequence[tuple[Any, Any]] = list(
            value.items() if isinstance(value, dict) else enumerate(value)
        )
        return {
            where: leaf for key, entry in entries for where, leaf in _leaves(entry, f"{place}/{key}").items()
        }
    return {place: value}
