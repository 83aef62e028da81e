"""How wide and how long a retraining trains by default: as its time is best used on this machine.

A network that is right for a trial of a minute is too small for a training of twenty. When a training may
take k times as long, its multiply-accumulates an image and the images that it sees both grow by sqrt(k): the
rule by which the CIFAR-10 speed records have grown from 94 to 96 % (Jordan, "94% on CIFAR-10 in 3.29 seconds
on a single GPU", 2024), and that `python -m benchmarks.sizes` measures here. The best candidate also competes
as wide as it was found. Custom networks stay as they are.
"""

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mc1opt.config import Config, CustomNetwork
from mc1opt.database.records import StudyRecord
from mc1opt.errors import StorageError
from mc1opt.files import read_object, write_whole
from mc1opt.machine.environment import versions
from mc1opt.models.cost import cost
from mc1opt.models.widen import widened
from mc1opt.retraining.comparison import Candidate, Form
from mc1opt.retraining.plan import RetrainPlan, makespan
from mc1opt.workers.pool import Pool
from mc1opt.workers.speed import VALIDATION_SHARE, epoch_seconds

BUDGET_SECONDS = 3600.0
"""Seconds that all trainings shall take together by default."""
COMPARISON_SHARE = 1 / 6
"""Time of a training that compares candidates, of that of a final one."""
MOST_GROWTH = 16.0
"""Of the multiply-accumulates: widths grow at most fourfold."""
LEAST_EPOCHS = 2
MOST_EPOCHS = 200
UNKNOWN_EPOCHS = 20
"""Epochs where it is not known how long one takes."""
REMEMBERED = "epochs.json"
"""The defaults of a study's retrainings, in the folder of its models."""

Time = Callable[[Sequence[Config]], list[float | None]]
"""Configs to the seconds of an epoch of each at the search's fidelity; None where it cannot be trained."""


def within_budget(plan: RetrainPlan, time: Time) -> RetrainPlan:
    """The plan with candidates whose trainings take about its budget together.

    Args:
        plan: with candidates as they were found, and their seconds.
        time: measures wider ones.
    """
    found = plan.candidates
    if plan.search is None or not all(each.epoch_seconds for each in found):
        return replace(plan, epochs=UNKNOWN_EPOCHS)
    growing = [not (plan.keep_size or isinstance(each.config.architecture, CustomNetwork)) for each in found]
    competitors = list(zip(found, growing, strict=True))
    if growing[0]:
        competitors.append((found[0], False))
    stages = _seconds_of_stages(plan, len(competitors))
    drafts = [
        (each, [_draft(plan, each, seconds if wider else 0.0) for seconds in stages])
        for each, wider in competitors
    ]
    known = {each.config: each.epoch_seconds for each in found}
    unknown = {config: each for each, pair in drafts for _, config in pair if config not in known}
    for (config, each), seconds in zip(unknown.items(), time(list(unknown)), strict=True):
        known[config] = None if seconds is None else min(seconds, _most_seconds(plan, each, config))
    sized: dict[Config, Candidate] = {}  # of those that are compared in the same form, the one that grows
    for each, ((growth, compared), (final_growth, final)) in drafts:
        if known[compared] and known[final]:  # else it cannot be trained
            forms = (
                _form(plan, compared, growth, stages[0], known[compared], final=False),
                _form(plan, final, final_growth, stages[1], known[final], final=True),
            )
            sized.setdefault(compared, replace(each, forms=forms))
    return replace(plan, candidates=tuple(sized.values()))


def _most_seconds(plan: RetrainPlan, found: Candidate, wider: Config) -> float:
    """Of an epoch: as much more as it has more multiply-accumulates, which wide layers compute faster.

    What was measured may be more by what else the machine did in those seconds.
    """
    assert found.epoch_seconds is not None
    macs = [cost(config.architecture, plan.data.shape).macs for config in (wider, found.config)]
    return found.epoch_seconds * macs[0] / macs[1]


def _seconds_of_stages(plan: RetrainPlan, competitors: int) -> tuple[float, float]:
    """Of a training that compares so many competitors, and of a final one or a fold."""
    compared = makespan([COMPARISON_SHARE] * (competitors * len(plan.seeds)), plan.workers)
    final = (plan.budget or BUDGET_SECONDS) / (
        compared + makespan([1.0] * (len(plan.seeds) + plan.folds), plan.workers)
    )
    return COMPARISON_SHARE * final, final


def _draft(plan: RetrainPlan, candidate: Candidate, seconds: float) -> tuple[float, Config]:
    """The growth of a candidate's multiply-accumulates for a training of so many seconds, and its config."""
    assert plan.search is not None
    assert candidate.epoch_seconds is not None
    longer = seconds / (plan.search.epochs * candidate.epoch_seconds)
    growth = min(MOST_GROWTH, max(1.0, math.sqrt(longer)))
    while growth > 1.0 and not _is_allowed(plan, _grown(plan, candidate, growth)):
        growth = max(1.0, 0.95 * growth)
    return growth, _grown(plan, candidate, growth)


def _is_allowed(plan: RetrainPlan, config: Config) -> bool:
    """Whether a network is within the study's CONSTRAINTS; `--max-macs` limits the search alone."""
    size = cost(config.architecture, plan.data.shape)
    return plan.aim.allows(parameters=size.parameters, macs=size.macs)


def _grown(plan: RetrainPlan, candidate: Candidate, growth: float) -> Config:
    architecture = widened(candidate.config.architecture, growth, plan.data.shape)
    return candidate.config.model_copy(update={"architecture": architecture})


def _form(
    plan: RetrainPlan, config: Config, growth: float, seconds: float, epoch: float | None, *, final: bool
) -> Form:
    """A form with as many epochs as take `seconds`; `epoch` are those of one at the search's fidelity."""
    assert plan.search is not None
    assert epoch is not None
    validation = VALIDATION_SHARE * plan.data.validation_images
    searched = plan.search.train_images + validation
    images = plan.data.train_images if final else plan.train_images + validation
    epochs = min(MOST_EPOCHS, max(LEAST_EPOCHS, int(seconds / epoch * searched / images)))
    return Form(growth, config, epochs, epoch)


# ---- Seconds ---------------------------------------------------------------------------------------------


def timer(plan: RetrainPlan, new_pool: Callable[[int], Pool], interrupted: Callable[[], bool]) -> Time:
    """Times an epoch of configs on this machine, with as many workers as will train."""

    def time(configs: Sequence[Config]) -> list[float | None]:
        if not configs or plan.search is None:
            return [None] * len(configs)
        pool = new_pool(plan.workers)
        try:
            return [
                epoch_seconds(
                    config,
                    pool,
                    data=plan.data,
                    fidelity=plan.search,
                    device=plan.device,
                    precision=plan.precision,
                    threads=plan.threads,
                    interrupted=interrupted,
                )
                for config in configs
            ]
        finally:
            pool.close()

    return time


def timed_here(
    plan: RetrainPlan, record: StudyRecord, time: Time, write: Callable[[str], None]
) -> RetrainPlan:
    """The plan with seconds of this machine: those of the search, or those of epochs that are timed now.

    The search ran on the same kind of machine where device, precision, the CPU's capability and the GPU's
    model are the same.

    Args:
        plan: of the retraining.
        record: the study.
        time: measures.
        write: takes a line that says so.
    """
    here = {
        candidate.trial: versions(1, plan.precision, plan.device, candidate.config)
        for candidate in plan.candidates
    }
    known = {
        trial.number
        for trial in record.trials
        if trial.number in here
        and trial.device == plan.device
        and all(trial.versions.get(key) == here[trial.number].get(key) for key in ("cpu", "precision", "gpu"))
    }
    elsewhere = [candidate for candidate in plan.candidates if candidate.trial not in known]
    if plan.search is None or not elsewhere:
        return plan
    write("The search ran on another kind of machine: timing an epoch of each candidate here.")
    seconds = dict(zip(elsewhere, time([each.config for each in elsewhere]), strict=True))
    candidates = (
        replace(each, epoch_seconds=seconds[each]) if each in seconds else each for each in plan.candidates
    )
    return replace(plan, candidates=tuple(candidates))


# ---- What was chosen -------------------------------------------------------------------------------------


def remembered(plan: RetrainPlan) -> RetrainPlan | None:
    """The plan as the first start of this retraining made it, on whatever machine; None before it."""
    stored: Any = read_object(plan.folder / REMEMBERED).get(plan.request)
    if isinstance(stored, int) and stored > 0:
        return replace(plan, epochs=stored)
    found = {each.trial: each for each in plan.candidates}
    try:
        candidates = [
            replace(found[entry["trial"]], forms=_forms(plan, found[entry["trial"]], entry["forms"]))
            for entry in stored
        ]
    except (TypeError, KeyError, ValueError):  # damaged, or there is none
        return None
    return replace(plan, candidates=tuple(candidates)) if candidates else None


def _forms(plan: RetrainPlan, candidate: Candidate, stored: list[Any]) -> tuple[Form, Form]:
    first, final = (
        Form(growth, _grown(plan, candidate, growth), epochs, seconds) for growth, epochs, seconds in stored
    )
    return first, final


def remember(plan: RetrainPlan) -> None:
    """Stores what was chosen, so that the next start goes on with the same trainings.

    Raises:
        StorageError: it cannot be written.
    """
    path = plan.folder / REMEMBERED
    chosen: Any = plan.epochs or [
        {
            "trial": each.trial,
            "forms": [[form.growth, form.epochs, form.epoch_seconds] for form in each.forms or ()],
        }
        for each in plan.candidates
    ]
    try:
        content = {**read_object(path), plan.request: chosen}
        write_whole(path, f"{json.dumps(content, indent=2)}\n".encode())
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}.") from error
