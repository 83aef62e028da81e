"""`mc1opt explain`: the trainings of an ablation, stored as they end, and what comes of them."""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TextIO

from mc1opt.data.libraries import check_libraries
from mc1opt.database.location import models_folder
from mc1opt.database.studies import claim_study, read_study
from mc1opt.display.progress import passed_over_lines
from mc1opt.errors import StorageError
from mc1opt.explanation.ablation import Ablation, Wanted
from mc1opt.explanation.plan import ExplainOptions, ExplainPlan, explain_plan, plan_line
from mc1opt.explanation.result import FILE, Explanation, explanation_lines, explanation_of
from mc1opt.files import exclusive, write_whole
from mc1opt.measurement.store import TRAININGS, StoredTraining, TrainingKey, TrainingStore
from mc1opt.measurement.trainings import StoredTrainings
from mc1opt.workers.pool import Pool
from mc1opt.workers.stop import StopFlag


class _Stopped(Exception):  # noqa: N818  (no error)
    """Nothing more is trained."""


@dataclass
class _Measuring:
    """Gives an ablation what is stored, and what `trainings` has trained."""

    plan: ExplainPlan
    store: TrainingStore
    trainings: StoredTrainings | None = None
    """None where nothing shall be trained."""
    used: dict[TrainingKey, StoredTraining] = field(default_factory=dict)
    left: int = 0
    """Trainings, at most, that were missing when it stopped."""

    def __call__(self, wanted: Sequence[Wanted], later: int) -> list[float | None]:
        """See `Measure`.

        Raises:
            _Stopped: some are missing.
        """
        jobs = list(map(self.plan.job, wanted))
        if self.trainings is not None:
            self.trainings.total = self.trainings.done + len(jobs) + later
            self.trainings.train(jobs, lambda _job, _stored: None)
        found = [self.store.find(job.training) for job in jobs]
        stored = [each for each in found if each is not None]
        self.used |= {each.key: each for each in stored}
        if len(stored) < len(jobs):
            self.left = len(jobs) - len(stored) + later
            raise _Stopped
        return [each.value for each in stored]


def explain(
    options: ExplainOptions,
    *,
    stop: StopFlag,
    output: TextIO,
    on_start: Callable[[], None] = lambda: None,
    new_pool: Callable[[int], Pool] | None = None,
) -> Explanation | None:
    """Explains what distinguishes two configs of a study, as the command line asks for it.

    Args:
        options: of the command.
        stop: set by signals; read only once `on_start` was called.
        output: where progress and results are shown.
        on_start: called before the first training begins.
        new_pool: makes the pool for a number of workers; None for that of the options.

    Returns:
        None where it was stopped; `stop` says why.

    Raises:
        Mc1optError: wrong use, or what went wrong; finished trainings are kept.
    """

    def write(line: str) -> None:
        print(line, file=output, flush=True)

    check_libraries()
    claim_study(options.storage, options.study)
    record = read_study(options.storage, options.study)
    for line in passed_over_lines(record.trials):
        write(line)
    plan = explain_plan(options, record, output)
    new_pool = new_pool or functools.partial(options.engine.pool, device=plan.device)
    with exclusive(plan.folder, f"study {options.study!r} is being explained by another process."):
        on_start()
        stop.limit(options.timeout)
        # What a retraining has trained in the same way need not be trained again.
        store = TrainingStore(
            plan.folder / TRAININGS, models_folder(options.storage, record.folder) / TRAININGS
        )
        known = _Measuring(plan, store)
        _run(plan, known, lambda _line: None)
        write(plan_line(record, plan, len(known.used), known.left))
        make = functools.partial(new_pool, plan.workers)
        with StoredTrainings(store, make, stop, write, len(known.used) + known.left) as trainings:
            measuring = _Measuring(plan, store, trainings)
            ablation = _run(plan, measuring, write)
            if ablation is None:
                write(trainings.stopped_line())
                return None
        seconds = [stored.seconds for stored in measuring.used.values()]
        ends = plan.source, plan.target
        result = explanation_of(options.study, ends, ablation, plan.fidelity, seconds)
        _store(result, plan)
    for line in explanation_lines(result):
        write(line)
    return result


def _run(plan: ExplainPlan, measuring: _Measuring, write: Callable[[str], None]) -> Ablation | None:
    """The ablation; None where it was stopped."""
    metric, seeds = plan.aim.metric, len(plan.seeds)
    ablation = Ablation(plan.differences, seeds, metric, plan.least_std, measuring, write)
    try:
        ablation.run()
    except _Stopped:
        return None
    return ablation


def _store(result: Explanation, plan: ExplainPlan) -> None:
    """Replaces the study's explanation.

    Raises:
        StorageError: the file cannot be written.
    """
    path = plan.folder / FILE
    try:
        write_whole(path, (json.dumps(result.to_json(), indent=2) + "\n").encode())
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}.") from error


def stopped_json(study: str, reason: str) -> dict[str, object]:
    """What `explain --json` prints of an explanation that was stopped."""
    return {"study": study, "stopped": reason, "steps": None, "leave_one_out": None}
