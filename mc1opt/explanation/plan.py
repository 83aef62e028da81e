"""Which two configs of a study are compared, what is trained for that, and how long that takes.

Trainings are those of the search, with new seeds: the trials' images and epochs, without a short schedule,
and the images that validate trials. So values compare with those of the search, and the images held out for
choosing among finalists stay unseen, as do the test images.
"""

import math
import statistics
from dataclasses import dataclass
from typing import TextIO

from mc1opt.config import Config, config_from_json
from mc1opt.data.model_images import study_data
from mc1opt.database.ranking import by_expected_accuracy
from mc1opt.database.records import StudyRecord, TrialRecord
from mc1opt.describe import describe_fidelity
from mc1opt.errors import UsageError
from mc1opt.explanation.ablation import SOURCE, Wanted
from mc1opt.explanation.groups import Differences
from mc1opt.explanation.result import explanation_folder
from mc1opt.machine.devices import resolve_precision
from mc1opt.measurement.plan import Job, MeasureOptions, Plan, memory_needs
from mc1opt.measurement.trainings import OVERHEAD_MACS
from mc1opt.models.cost import cost
from mc1opt.presets import get_preset
from mc1opt.seeds import retrain_seed
from mc1opt.spec import Fidelity
from mc1opt.text import duration, plural


@dataclass(frozen=True, kw_only=True)
class ExplainOptions(MeasureOptions):
    """The options of `mc1opt explain`."""

    study: str
    source: str | None = None
    """A preset's name, or the number of a trial; None for where the search began."""
    target: int | None = None
    """The number of a trial; None for the best one."""


@dataclass(frozen=True, kw_only=True)
class ExplainPlan(Plan):
    """What an explanation trains."""

    source: str
    """Its name."""
    target: str
    differences: Differences
    fidelity: Fidelity
    seeds: tuple[int, ...]

    def job(self, wanted: Wanted) -> Job:
        """A training of the ablation."""
        name, config, index = wanted
        training = self.seed_job(name, config, self.fidelity.epochs, index, self.seeds[index]).training
        return Job(name, index, training.model_copy(update={"fidelity": self.fidelity}))

    @property
    def least_std(self) -> float:
        """That of rounding to whole images, where the metric is a share of those that validate."""
        if not self.aim.metric.is_share:
            return 0.0
        training = self.job((SOURCE, self.differences.source, 0)).training
        return 1.0 / (training.unused_images or self.data.validation_images) / math.sqrt(12.0)


def explain_plan(options: ExplainOptions, record: StudyRecord, output: TextIO) -> ExplainPlan:
    """What is compared, on what, and by how many workers.

    Raises:
        UsageError: an option is wrong, there are no two configs, or one does not fit the images.
        DataError: the images are missing, or others.
    """
    (source, first), (target, second) = _ends(options, record)
    device = options.engine.find_device()  # a wrong option is said before images are fetched
    data = study_data(record.study, record.data, options.data, output)
    if record.fidelity is None or data.validation_images < 1:
        raise UsageError(f"study {record.study!r} does not say how its trials are trained and validated.")
    for name, config in ((source, first), (target, second)):
        try:
            cost(config.architecture, data.shape)
        except ValueError as error:
            raise UsageError(f"{name} is no network for {data.name}: {error}.") from error
    differences = Differences(first, second, data.shape)
    if not differences.groups:
        raise UsageError(
            f"there is nothing to explain: {source} and {target} are the same config. Name another one with "
            "--from or --to."
        )
    precision = resolve_precision(device)
    needs = memory_needs(_configs(differences), data, device, precision)
    return ExplainPlan(
        source=source,
        target=target,
        differences=differences,
        fidelity=record.fidelity.model_copy(update={"short_epochs": 0}),
        seeds=tuple(retrain_seed(record.seed or 0, index) for index in range(options.seeds)),
        folds=0,
        data=data,
        device=device,
        precision=precision,
        workers=options.engine.count(device, max(need.host for need in needs)),
        threads=options.engine.cpus,
        folder=explanation_folder(options.storage, record.folder),
        aim=record.aim,
    )


def _ends(options: ExplainOptions, record: StudyRecord) -> list[tuple[str, Config]]:
    """Name and config of the source and of the target.

    Raises:
        UsageError: there is none of that name or number, or no complete trial to begin or end with.
    """
    ranked = by_expected_accuracy(record.trials)
    if options.target is not None:
        target = record.own_trial(options.target)
    elif ranked:
        target = ranked[0]
    else:
        raise UsageError(
            f"study {record.study!r} has no finished trial to explain. `mc1opt run` goes on with it."
        )
    end = _named(record, target)
    if options.source is None:
        others = [trial for trial in ranked if trial.config_id != target.config_id]
        if not others:
            raise UsageError(
                f"no finished trial has another config than {end[0]}. Name a preset with --from."
            )
        given = [trial for trial in others if trial.starting_point]
        return [_named(record, (given or sorted(others, key=lambda trial: trial.ended or ""))[0]), end]
    if options.source.isdecimal():
        return [_named(record, record.own_trial(int(options.source))), end]
    return [(f"preset {options.source}", get_preset(options.source).config), end]


def _named(record: StudyRecord, trial: TrialRecord) -> tuple[str, Config]:
    if trial.config is None:
        raise UsageError(
            f"trial {trial.number} of study {record.study!r} has no config ({trial.outcome}). Name "
            "another one."
        )
    return f"#{trial.number}", config_from_json(trial.config)


def _configs(differences: Differences) -> list[Config]:
    """The configs that are known beforehand: both ends, and those one group away from either."""
    groups = differences.groups
    alone = [differences.config({group}) for group in groups]
    found = [differences.source, differences.target, *alone, *differences.without.values()]
    return [config for config in found if config is not None]


def expected_seconds(record: StudyRecord, plan: ExplainPlan, trainings: int) -> float | None:
    """Seconds that so many trainings take, by the study's trials on this device; None where they don't say.

    What configs on the path will cost is not known: the known ones stand for them, by multiply-accumulates.
    """
    speeds = [
        trial.epoch_seconds / (trial.macs + OVERHEAD_MACS)
        for trial in record.trials
        if trial.epoch_seconds and trial.macs is not None and trial.device == plan.device
    ]
    if not speeds:
        return None
    macs = [cost(each.architecture, plan.data.shape).macs for each in _configs(plan.differences)]
    each = statistics.median(speeds) * (statistics.fmean(macs) + OVERHEAD_MACS) * plan.fidelity.epochs
    return each * trainings / plan.workers


def plan_line(record: StudyRecord, plan: ExplainPlan, stored: int, left: int) -> str:
    """What is about to be trained: trainings that are stored, and those that are left at most."""
    groups, seconds = plan.differences.groups, expected_seconds(record, plan, left)
    time = "duration unknown" if seconds is None else f"about {duration(seconds)}"
    if not left:
        time = "nothing is left to train"
    done = f" Of them stored already: {stored}." if stored else ""
    return (
        f"Explaining study {record.study}: from {plan.source} to {plan.target}, "
        f"{plural(len(groups), 'change')} ({', '.join(groups)}). At most {plural(stored + left, 'training')} "
        f"of {describe_fidelity(plan.fidelity)}, {plural(plan.workers, 'worker')} on {plan.device} "
        f"({plan.precision}); {time}.{done} The test images stay closed. Ctrl-C keeps finished trainings."
    )
