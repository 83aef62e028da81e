"""Retraining: the finalists over several seeds, the winner on all images, one look at the test images."""

import contextlib
import functools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

from mc1opt.data.libraries import check_libraries
from mc1opt.data.model_images import study_data
from mc1opt.database.location import models_folder
from mc1opt.database.records import StudyRecord
from mc1opt.database.studies import claim_study, read_study
from mc1opt.display.progress import passed_over_lines
from mc1opt.errors import Mc1optError, ModelError, UsageError
from mc1opt.files import exclusive, read_object
from mc1opt.machine.devices import resolve_precision
from mc1opt.measurement.final_test import Measure, run_final_test
from mc1opt.measurement.plan import Job, check_folds, memory_needs
from mc1opt.measurement.store import TRAININGS, StoredTraining, TrainingStore
from mc1opt.measurement.trainings import StoredTrainings
from mc1opt.retraining.comparison import Candidate, Comparison, choose_candidates
from mc1opt.retraining.model_card import model_card
from mc1opt.retraining.plan import RetrainOptions, RetrainPlan
from mc1opt.retraining.report import Retraining, plan_line, result_lines, standing_line
from mc1opt.retraining.size import remember, remembered, timed_here, timer, within_budget
from mc1opt.seeds import retrain_seed
from mc1opt.training.model_folder import (
    CARD,
    METRICS,
    WEIGHTS,
    file_sha256,
    read_model_folder,
    write_model_folder,
)
from mc1opt.workers.pool import Pool
from mc1opt.workers.stop import StopFlag

TOP = 3
"""Candidates by default."""
OF_A_START = {"command", "workers", "planned_seconds", "seconds"}
"""Metrics of the start that wrote them, and not of the retraining."""


def retrain(
    options: RetrainOptions,
    *,
    stop: StopFlag,
    output: TextIO,
    on_start: Callable[[], None] = lambda: None,
    new_pool: Callable[[int], Pool] | None = None,
    measure: Measure | None = None,
) -> Retraining | None:
    """Trains a study's finalists again as the command line asks for it.

    Args:
        options: of the command.
        stop: set by signals; read only once `on_start` was called.
        output: where progress and results are shown.
        on_start: called before the first training begins.
        new_pool: makes the pool for a number of workers; None for that of the options.
        measure: see `run_final_test`.

    Returns:
        None where it was stopped; `stop` says why.

    Raises:
        Mc1optError: wrong use, or what went wrong; finished trainings are kept.
    """

    def write(line: str) -> None:
        print(line, file=output, flush=True)

    check_libraries()
    if options.top is not None and options.trial is not None:
        raise UsageError("--top and --trial exclude each other: a trial is retrained alone.")
    claim_study(options.storage, options.study)
    record = read_study(options.storage, options.study)
    for line in passed_over_lines(record.trials):
        write(line)
    plan = _plan(options, record, output)
    new_pool = new_pool or functools.partial(options.engine.pool, device=plan.device)
    known = replace(plan, epochs=options.epochs) if options.epochs else remembered(plan)
    time = timer(plan, new_pool, stop.is_set)
    if known is None:
        plan = within_budget(timed_here(plan, record, time, write), time)
    elif known.epochs and known.progress(TrainingStore(plan.folder / TRAININGS)).left:
        plan = timed_here(known, record, time, write)
    else:  # seconds are of no use where nothing is left to train
        plan = known
    plan = replace(plan, workers=_workers(options, plan))
    if options.folds is None:
        plan = replace(plan, folds=_folds_of_model(plan))
    _refuse_another_model(plan, options.force)
    with exclusive(plan.folder, f"study {options.study!r} is being retrained by another process."):
        on_start()
        if options.epochs is None:
            remember(plan)
        stop.limit(options.timeout)
        return _run(options, plan, stop, write, functools.partial(new_pool, plan.workers), measure)


def _plan(options: RetrainOptions, record: StudyRecord, output: TextIO) -> RetrainPlan:
    """What is trained; how wide and for how many epochs is not known yet.

    Raises:
        UsageError: an option is wrong, or the images allow no validation.
    """
    candidates = choose_candidates(record, top=options.top or TOP, trial=options.trial)
    device = options.engine.find_device()  # a wrong option is said before images are fetched
    precision = resolve_precision(device)
    data = study_data(record.study, record.data, options.data, output)
    if data.validation_images < 1:
        raise UsageError(f"{data.name} has no validation images: {data.train_images} are too few to retrain.")
    check_folds(options.folds or 0, data)
    plan = RetrainPlan(
        candidates=tuple(candidates),
        seeds=tuple(retrain_seed(record.seed or 0, index) for index in range(options.seeds)),
        folds=options.folds or 0,
        keep_size=options.keep_size,
        budget=options.budget,
        search=record.fidelity,
        data=data,
        device=device,
        precision=precision,
        workers=1,
        threads=options.engine.cpus,
        folder=models_folder(options.storage, record.folder),
        aim=record.aim,
    )
    return replace(plan, workers=_workers(options, plan))


def _workers(options: RetrainOptions, plan: RetrainPlan) -> int:
    """As many as were asked for, or as fit into memory."""
    configs = {plan.form(each, final=final).config for each in plan.candidates for final in (False, True)}
    needs = memory_needs(configs, plan.data, plan.device, plan.precision)
    return options.engine.count(plan.device, max(need.host for need in needs))


def _folds_of_model(plan: RetrainPlan) -> int:
    """The folds of this same retraining when its model was written: without `--folds` they stay."""
    metrics = read_object(plan.folder / METRICS)
    try:
        return len(metrics["folds"]["validation"]) if metrics["retraining"] == plan.identity else 0
    except (KeyError, TypeError):  # there were none
        return 0


def _refuse_another_model(plan: RetrainPlan, force: bool) -> None:
    """Refuses to replace a model of another retraining, before anything is trained."""
    if force or not (plan.folder / WEIGHTS).exists():
        return
    if read_object(plan.folder / METRICS).get("retraining") != plan.identity:
        raise UsageError(
            f"{plan.folder} holds the model of another retraining: of other candidates, seeds, epochs or "
            "images. --force replaces it; its trainings stay stored."
        )


def _run(
    options: RetrainOptions,
    plan: RetrainPlan,
    stop: StopFlag,
    write: Callable[[str], None],
    new_pool: Callable[[], Pool],
    measure: Measure | None,
) -> Retraining | None:
    """Both stages and the test; None where they are stopped."""
    store = TrainingStore(plan.folder / TRAININGS)
    progress = plan.progress(store)
    write(plan_line(options.study, plan, progress))
    with StoredTrainings(store, new_pool, stop, write, plan.trainings) as trainings:
        comparison = plan.comparison()
        winner = _compare(plan, trainings, comparison, write)
        if winner is None or not trainings.train(plan.winner_jobs(winner), _refuse_failure):
            write(f"{trainings.stopped_line()} The test images stay closed.")
            return None
    jobs = [*plan.candidate_jobs(), *plan.winner_jobs(winner)]
    found = {job.label: store.find(job.training) for job in jobs}
    stored = {label: each for label, each in found.items() if each is not None}
    finals = [(job, stored[job.label]) for job in plan.winner_jobs(winner)[: len(plan.seeds)]]
    test = run_final_test(
        finals,
        data=plan.data,
        reason=f"retrain of study {options.study}: config {winner.config_id}, {len(finals)} seeds",
        folder=plan.folder,
        device=plan.device,
        write=write,
        measure=measure,
        metric=plan.aim.metric,
    )
    result = Retraining(
        options=options,
        plan=plan,
        comparison=comparison,
        winner=comparison.standings[winner.name],
        test=test,
        trainings=stored,
        kept=finals[0][1],
        planned_seconds=progress.seconds,
        seconds=trainings.seconds,
    )
    _write_model(result, Path(finals[0][0].training.weights or ""))
    for line in result_lines(result):
        write(line)
    return result


def _compare(
    plan: RetrainPlan, trainings: StoredTrainings, comparison: Comparison, write: Callable[[str], None]
) -> Candidate | None:
    """Stage 1: the winner; None if it was stopped."""

    def on_result(job: Job, stored: StoredTraining) -> None:
        for changed in comparison.add(job.name, job.seed, stored.value, stored.failure_message):
            write(standing_line(changed))

    def wanted(job: Job) -> bool:
        return comparison.wanted(job.name, job.seed)

    jobs = plan.candidate_jobs()
    while jobs:
        if not trainings.train(jobs, on_result, wanted):
            return None
        # Of those that were not wanted, some are if a leader has failed since.
        jobs = [job for job in jobs if not comparison.has(job.name, job.seed) and wanted(job)]
        trainings.total += len(jobs)  # they were left out of it
    winner = comparison.winner()
    if winner is None:
        raise Mc1optError(
            "no candidate is left: a training of each failed. Choose others with --trial, or more with --top."
        )
    write(f"Winner: {winner.candidate.name}. Now it is trained on all images; then comes the test.")
    return winner.candidate


def _refuse_failure(job: Job, stored: StoredTraining) -> None:
    """Refuses to go on without a training of the winner.

    Raises:
        Mc1optError: it failed by its config.
    """
    if stored.failure is not None:
        raise Mc1optError(
            f"{job.label} failed ({stored.failure.kind}), and would again: {stored.failure.message}. "
            "Choose another config with --trial."
        )


def _write_model(result: Retraining, weights: Path) -> None:
    """Writes the model folder, unless it is there as it would be."""
    folder = result.plan.folder
    metrics: dict[str, Any] = json.loads(json.dumps(result.to_json()))
    sha256 = file_sha256(weights)
    with contextlib.suppress(ModelError):
        there = read_model_folder(folder)
        differing = {name for name in metrics if there.metrics.get(name, folder) != metrics[name]}
        whole = there.weights_sha256 == sha256 and (folder / CARD).is_file()
        if whole and differing <= OF_A_START:
            return  # it was only asked for again: what its trainings took stays what they took
    config, card = result.final.config, model_card(result, sha256)
    write_model_folder(folder, weights, config, result.plan.data, metrics, card, force=True)
