"""An explanation: what each group of changes has brought, as it is stored, as JSON and as text."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from mc1opt.config import Config, config_id
from mc1opt.database.location import models_folder
from mc1opt.database.records import StudyRecord
from mc1opt.describe import describe_change, describe_config, describe_fidelity
from mc1opt.explanation.ablation import Ablation
from mc1opt.files import read_object
from mc1opt.metric import Direction
from mc1opt.models.cost import cost
from mc1opt.spec import Fidelity
from mc1opt.text import duration, few, plural

FILE = "explanation.json"
"""The latest explanation of a study, in its `explanation_folder`."""

Interval = tuple[float, float]


@dataclass(frozen=True)
class Step:
    """A config on the path, or the target without a group, and what the change brings."""

    group: str
    """Its name; names of several that only fit together are joined by " + "."""
    change: str
    """In words, from the config that it is compared with; of the source the whole config."""
    config_id: str
    parameters: int
    n: int
    """Trainings that gave a value."""
    mean: float | None
    """Of the metric over seeds; None where all trainings failed."""
    interval: Interval | None
    """95 %, for the mean; None for a single seed."""
    difference: float | None
    """To the step before it, or to the target; None for the source, and where a mean is missing."""
    difference_interval: Interval | None
    """95 %."""
    failures: int
    """Trainings that failed, such as diverged ones."""
    others: dict[str, float | None]
    """On the path, the mean of each group that competed and was not taken."""


@dataclass(frozen=True)
class Explanation:
    """What distinguishes two configs of a study, and what each group of differences brings.

    Values and differences are in the metric's unit. Intervals are about seeds: their deviation is pooled over
    all configs that were trained but for unstable ones, which have no interval.
    """

    study: str
    source: str
    """Its name, such as "preset cnn-32-128-pool" or "#3"."""
    target: str
    metric: str
    """Its name for people."""
    direction: Direction
    """Of the metric: under "minimize" a negative difference is a gain."""
    is_share: bool
    """Whether differences can be told in points."""
    fidelity: str
    """In words: "5 epochs of 18,000 images"."""
    seeds: int
    """Trainings of a config that is not dropped."""
    steps: tuple[Step, ...]
    """From the source to the target, both included."""
    total: float | None
    """The target's mean minus the source's."""
    total_interval: Interval | None
    leave_one_out: tuple[Step, ...]
    """The target without each group, the greatest loss first."""
    inseparable: tuple[str, ...]
    """Groups that cannot be left out alone: without them, there is no such network."""
    trainings: int
    """That all this rests on."""
    seconds: float
    """Of those trainings, added up."""

    def to_json(self) -> dict[str, Any]:
        """As it is stored, and as `explain --json` prints it."""
        return asdict(self)


def explanation_of(
    study: str, ends: tuple[str, str], ablation: Ablation, fidelity: Fidelity, seconds: Sequence[float]
) -> Explanation:
    """What an ablation has found.

    Args:
        study: its name.
        ends: the names of the source and of the target.
        ablation: after its run.
        fidelity: of the trainings.
        seconds: of each of them.
    """
    differences, metric, path = ablation.differences, ablation.metric, ablation.path
    target = differences.target
    steps = [_step(ablation, path[0].name, path[0].config, None)]
    for before, taken in itertools.pairwise(path):
        others = {name: ablation.mean(config) for name, config in taken.others.items()}
        steps.append(_step(ablation, taken.name, taken.config, before.config, others))
    without = [_step(ablation, group, config, target) for group, config in differences.without.items()]
    total = ablation.difference(target, path[0].config)
    return Explanation(
        study=study,
        source=ends[0],
        target=ends[1],
        metric=metric.label,
        direction=metric.direction,
        is_share=metric.is_share,
        fidelity=describe_fidelity(fidelity),
        seeds=ablation.seeds,
        steps=tuple(steps),
        total=total,
        total_interval=ablation.interval(total, target, path[0].config),
        leave_one_out=tuple(sorted(without, key=lambda step: metric.score(step.difference or 0.0))),
        inseparable=tuple(group for group in differences.groups if group not in differences.without),
        trainings=len(seconds),
        seconds=sum(seconds),
    )


def _step(
    ablation: Ablation,
    group: str,
    config: Config,
    before: Config | None,
    others: dict[str, float | None] | None = None,
) -> Step:
    mean = ablation.mean(config)
    gain = None if before is None else ablation.difference(config, before)
    return Step(
        group=group,
        change=describe_config(config) if before is None else describe_change(before, config),
        config_id=config_id(config),
        parameters=cost(config.architecture, ablation.differences.shape).parameters,
        n=len(ablation.known(config)),
        mean=mean,
        interval=ablation.interval(mean, config),
        difference=gain,
        difference_interval=None if before is None else ablation.interval(gain, config, before),
        failures=ablation.failures(config),
        others=others or {},
    )


def explanation_folder(storage: str, folder: str) -> Path:
    """Where the trainings of a study's explanations are, and the latest explanation.

    Args:
        storage: the study database.
        folder: of the study's record.
    """
    return models_folder(storage, folder) / "explanation"


def read_explanation(storage: str, record: StudyRecord) -> Explanation | None:
    """The latest explanation of a study.

    None if there is none, if its file is damaged, or if it is of an earlier study of this name.
    """
    stored = read_object(explanation_folder(storage, record.folder) / FILE)
    try:
        found = TypeAdapter(Explanation).validate_python(stored)
    except ValidationError:
        return None
    known = {trial.config_id for trial in record.trials}
    return found if found.steps and found.steps[-1].config_id in known else None


# ---- Lines -----------------------------------------------------------------------------------------------


def explanation_lines(explanation: Explanation) -> list[str]:
    """The explanation as tables for people."""
    target, last = explanation.target, explanation.steps[-1]
    total = _difference(explanation, explanation.total, explanation.total_interval) or "not known"
    lines = [
        f"From {explanation.source} to {target} of study {explanation.study}, one change at a time, the one "
        f"first that gains most ({explanation.metric}; {explanation.fidelity}; "
        f"{plural(explanation.seeds, 'seed')}):",
        *_table(explanation, explanation.steps, "to the step before"),
        f"In all: {total}. The gain of a single step is a little flattered, as the best of several; what is "
        "gained in all is not.",
        "",
        f"Left out of {target} ({'-' if last.mean is None else f'{last.mean:.4f}'}), one change at a time:",
        *_table(explanation, explanation.leave_one_out, f"to {target}"),
    ]
    if explanation.inseparable:
        lines.append(
            f"Not to be left out alone, for there is no such network: {few(explanation.inseparable, 20)}."
        )
    return [
        *lines,
        f"It rests on {plural(explanation.trainings, 'training')}, {duration(explanation.seconds)} in all. "
        "Intervals are 95 %, over seeds, whose deviation is pooled over all configs but for unstable ones, "
        "some of whose trainings collapsed: of these there is none.",
    ]


def _table(explanation: Explanation, steps: tuple[Step, ...], compared: str) -> Iterator[str]:
    width = max((len(step.group) for step in steps), default=0)
    unit = "points " if explanation.is_share else ""
    yield f"  {'change':<{width}}  mean    95 % interval     parameters  {unit}{compared}"
    for step in steps:
        mean = "-" if step.mean is None else f"{step.mean:.4f}"
        interval = "-" if step.interval is None else "{:.4f} to {:.4f}".format(*step.interval)
        difference = _difference(explanation, step.difference, step.difference_interval)
        failed = f"  ({plural(step.failures, 'training')} failed)" if step.failures else ""
        yield (
            f"  {step.group:<{width}}  {mean:<7} {interval:<17} {step.parameters:>10,}  {difference}{failed}"
        ).rstrip()
        yield f"      {step.change}"


def _difference(explanation: Explanation, value: float | None, interval: Interval | None) -> str:
    """A difference with its interval, of a share in points."""
    if value is None:
        return ""

    def words(amount: float) -> str:
        return f"{100.0 * amount:+.1f}" if explanation.is_share else f"{amount:+.4g}"

    return words(value) if interval is None else f"{words(value)} ({' to '.join(map(words, interval))})"
