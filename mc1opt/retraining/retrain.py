"""Retraining: the finalists over several seeds, the winner on all images, one look at the test images."""

import contextlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from mc1opt.data.libraries import check_libraries
from mc1opt.database.location import models_folder
from mc1opt.database.records import StudyRecord
from mc1opt.database.studies import claim_study, read_study
from mc1opt.display.progress import passed_over_lines
from mc1opt.errors import Mc1optError, ModelError, UsageError
from mc1opt.files import exclusive, read_object
from mc1opt.machine.devices import resolve_device, resolve_precision
from mc1opt.machine.memory import training_memory
from mc1opt.measurement.final_test import Final, FinalTest, Measure, run_final_test
from mc1opt.measurement.folds import check_folds
from mc1opt.measurement.store import TRAININGS, StoredTraining, TrainingStore
from mc1opt.measurement.trainings import Job, StoredTrainings
from mc1opt.retraining.card import model_card
from mc1opt.retraining.comparison import Candidate, Comparison, Standing, choose_candidates, study_data
from mc1opt.retraining.epochs import remember_epochs, with_seconds_of_this_machine
from mc1opt.retraining.plan import CandidateJob, RetrainPlan, make_plan
from mc1opt.retraining.report import Retraining, plan_line, result_lines, standing_line
from mc1opt.search.settings import resolve_workers
from mc1opt.text import duration
from mc1opt.training.model_folder import (
    CARD,
    METRICS,
    WEIGHTS,
    file_sha256,
    read_model_folder,
    write_model_folder,
)
from mc1opt.workers.pool import Pool, ProcessPool
from mc1opt.workers.stop import StopFlag, StopReason

TOP = 3
"""Candidates, if nobody says how many."""
OF_A_START = {"command", "workers", "planned_seconds", "seconds"}
"""What metrics tell of the start that wrote them, and not of the retraining."""


@dataclass(frozen=True)
class RetrainCommand:
    """The options of `mc1opt retrain`."""

    study: str
    storage: str
    top: int | None = None
    trial: int | None = None
    seeds: int = 3
    folds: int | None = None
    epochs: int | None = None
    timeout: float | None = None
    workers: str = "auto"
    device: str = "auto"
    data: Path | None = None
    force: bool = False
    command: str = "mc1opt retrain"
    """As it was given, for the model card."""


@dataclass(frozen=True)
class RetrainEnded:
    """How a retraining ended."""

    reason: StopReason
    result: Retraining | None
    """None where it was stopped."""


def retrain(
    command: RetrainCommand,
    *,
    stop: StopFlag,
    output: TextIO,
    on_start: Callable[[], None] = lambda: None,
    new_pool: Callable[[int], Pool] = ProcessPool,
    measure: Measure | None = None,
) -> RetrainEnded:
    """Trains a study's finalists again as the command line asks for it.

    Args:
        command: the options.
        stop: signals set it; it is looked at only when the first training begins.
        output: where progress and results are shown.
        on_start: called when that is about to happen.
        new_pool: makes the pool for a number of workers; tests put a cheap one in its place.
        measure: see `run_final_test`.

    Raises:
        Mc1optError: wrong use, or what went wrong; finished trainings are kept.
    """

    def write(line: str) -> None:
        print(line, file=output, flush=True)

    check_libraries()
    if command.top is not None and command.trial is not None:
        raise UsageError("--top and --trial exclude each other: a trial is retrained alone.")
    claim_study(command.storage, command.study)
    record = read_study(command.storage, command.study)
    for line in passed_over_lines(record.trials):
        write(line)
    folder = models_folder(command.storage, record.folder)
    plan = _plan(command, record, folder, output, stop, write, new_pool)
    _refuse_another_model(folder, plan, command.force)
    with exclusive(folder, f"study {command.study!r} is being retrained by another process."):
        on_start()
        if command.epochs is None:
            remember_epochs(folder, plan.request, plan.epochs)
        retraining = _Retraining(command, plan, folder, stop, write, new_pool, measure)
        return retraining.run()


def _plan(
    command: RetrainCommand,
    record: StudyRecord,
    folder: Path,
    output: TextIO,
    stop: StopFlag,
    write: Callable[[str], None],
    new_pool: Callable[[int], Pool],
) -> RetrainPlan:
    candidates = choose_candidates(record, top=command.top or TOP, trial=command.trial)
    device = resolve_device(command.device)
    precision = resolve_precision(device)
    resolve_workers(command.workers, device)  # a wrong option is said before images are fetched
    data = study_data(record, command.data, output)
    check_folds(command.folds or 0, data)
    needs = [
        training_memory(
            candidate.config,
            train_images=data.train_images,
            validation_images=0,  # the training on all images is the largest
            device=device,
            precision=precision,
        )
        for candidate in candidates
    ]
    workers = resolve_workers(command.workers, device, max(need.host for need in needs))

    def plan_of(candidates: Sequence[Candidate]) -> RetrainPlan:
        plan = make_plan(
            candidates,
            study_seed=record.seed or 0,
            seeds=command.seeds,
            folds=command.folds or 0,
            epochs=command.epochs,
            search=record.fidelity,
            data=data,
            device=device,
            precision=precision,
            workers=workers,
            folder=folder,
        )
        return plan if command.folds is not None else replace(plan, folds=_folds_of_model(folder, plan))

    plan = plan_of(candidates)
    if plan.progress(TrainingStore(folder / TRAININGS)).left == 0:
        return plan  # so that there is nothing to foretell
    timed = with_seconds_of_this_machine(
        candidates,
        record,
        data=data,
        device=device,
        precision=precision,
        new_pool=lambda: new_pool(workers),
        interrupted=stop.is_set,
        write=write,
    )
    return plan_of(timed)


def _folds_of_model(folder: Path, plan: RetrainPlan) -> int:
    """The folds of this same retraining when its model was written: without `--folds` they stay."""
    metrics = read_object(folder / METRICS)
    try:
        return len(metrics["folds"]["validation"]) if metrics["retraining"] == plan.identity else 0
    except (KeyError, TypeError):  # there were none
        return 0


def _refuse_another_model(folder: Path, plan: RetrainPlan, force: bool) -> None:
    """Refuses to replace a model of another retraining, before anything is trained."""
    if force or not (folder / WEIGHTS).exists():
        return
    if read_object(folder / METRICS).get("retraining") != plan.identity:
        raise UsageError(
            f"{folder} holds the model of another retraining: other candidates, seeds, epochs or images. "
            "--force replaces it; its trainings stay stored."
        )


@dataclass
class _Retraining:
    command: RetrainCommand
    plan: RetrainPlan
    folder: Path
    stop: StopFlag
    write: Callable[[str], None]
    new_pool: Callable[[int], Pool]
    measure: Measure | None
    finals: dict[int, StoredTraining] = field(default_factory=dict)
    """By seed."""
    fold_values: dict[int, float] = field(default_factory=dict)
    """Validation accuracy by fold."""

    def run(self) -> RetrainEnded:
        """All stages, or as far as the stop lets them come."""
        started = time.monotonic()
        plan = self.plan
        store = TrainingStore(self.folder / TRAININGS)
        progress = plan.progress(store)
        self.write(plan_line(self.command.study, plan, progress))
        self.stop.limit(self.command.timeout)
        with StoredTrainings(
            store, lambda: self.new_pool(plan.workers), self.stop, self.write, plan.trainings
        ) as trainings:
            comparison = plan.comparison()
            winner = self._compare(trainings, comparison)
            trained = winner is not None and self._train_winner(trainings, winner)
        if winner is None or not trained:
            self.write(self._stopped_line(time.monotonic() - started))
            return RetrainEnded(self.stop.reason, None)
        finals = self._tested_finals(winner)
        test = run_final_test(
            finals,
            data=plan.data,
            reason=(
                f"retrain of study {self.command.study}: config {winner.candidate.config_id}, "
                f"{len(finals)} seeds"
            ),
            folder=self.folder,
            device=plan.device,
            write=self.write,
            measure=self.measure,
        )
        kept = finals[0].stored
        result = self._result(comparison, winner, test, kept, progress.seconds, time.monotonic() - started)
        self._write_model(result, finals[0])
        for line in result_lines(result):
            self.write(line)
        return RetrainEnded("finished", result)

    def _compare(self, trainings: StoredTrainings, comparison: Comparison) -> Standing | None:
        """Stage 1; None if it was stopped."""

        def on_result(job: Job, stored: StoredTraining) -> None:
            assert isinstance(job, CandidateJob)
            for changed in comparison.add(job.trial, job.seed_index, stored.value, stored.failure_message):
                self.write(standing_line(changed))

        def wanted(job: Job) -> bool:
            assert isinstance(job, CandidateJob)
            return comparison.wanted(job.trial, job.seed_index)

        jobs = self.plan.candidate_jobs()
        while True:
            if not trainings.train(jobs, on_result, wanted):
                return None
            # Of those that were not wanted, some are if a leader has failed since.
            jobs = [job for job in jobs if not comparison.has(job.trial, job.seed_index) and wanted(job)]
            if not jobs:
                break
            trainings.total += len(jobs)  # they were left out of it
        winner = comparison.winner()
        if winner is None:
            raise Mc1optError(
                "no candidate is left: a training of each failed. Choose others with --trial, or more with "
                "--top."
            )
        self.write(
            f"Winner: #{winner.candidate.trial}. Now it is trained on all images; then comes the test."
        )
        return winner

    def _train_winner(self, trainings: StoredTrainings, winner: Standing) -> bool:
        """Stage 2 and the folds; whether all of it was trained."""

        def on_final(job: Job, stored: StoredTraining) -> None:
            if stored.failure is not None:
                raise Mc1optError(
                    f"{job.label} failed ({stored.failure.kind}), and would again: {stored.failure.message}. "
                    "Choose another config with --trial."
                )
            if stored.key.fold is None:
                self.finals[stored.key.seed] = stored
            elif stored.value is not None:
                self.fold_values[stored.key.fold.index] = stored.value

        finals = self.plan.final_jobs(winner.candidate)
        folds = self.plan.fold_jobs(winner.candidate) if self.plan.folds else []
        return trainings.train([*finals, *folds], on_final)

    def _tested_finals(self, winner: Standing) -> list[Final]:
        finals = []
        for job in self.plan.final_jobs(winner.candidate):
            assert job.training.weights is not None
            stored = self.finals[job.training.seed]
            finals.append(Final(stored, Path(job.training.weights), winner.candidate.config))
        return finals

    def _result(
        self,
        comparison: Comparison,
        winner: Standing,
        test: FinalTest,
        kept: StoredTraining,
        planned: float | None,
        seconds: float,
    ) -> Retraining:
        trainings = self._all_stored(winner)
        return Retraining(
            study=self.command.study,
            storage=self.command.storage,
            command=self.command.command,
            plan=self.plan,
            comparison=comparison,
            winner=winner,
            test=test,
            fold_values=[value for _, value in sorted(self.fold_values.items())],
            model=self.folder,
            planned_seconds=planned,
            seconds=seconds,
            training_seconds=sum(stored.seconds for stored in trainings.values()),
            smaller_steps={
                name: stored.accumulation for name, stored in trainings.items() if stored.accumulation > 1
            },
            accumulation=kept.accumulation,
            versions=kept.versions,  # that trained it; today's may be others
            commit=kept.commit,
        )

    def _all_stored(self, winner: Standing) -> dict[str, StoredTraining]:
        """All trainings of this plan by name, also those that were no longer needed when they ended."""
        finals, folds = self.plan.final_jobs(winner.candidate), self.plan.fold_jobs(winner.candidate)
        store = TrainingStore(self.folder / TRAININGS)
        jobs = (*self.plan.candidate_jobs(), *finals, *folds)
        found = {job.label: store.find(job.training) for job in jobs}
        return {name: stored for name, stored in found.items() if stored is not None}

    def _write_model(self, result: Retraining, kept: Final) -> None:
        metrics: dict[str, Any] = json.loads(json.dumps(result.to_json()))
        sha256 = file_sha256(kept.weights)
        with contextlib.suppress(ModelError):
            there = read_model_folder(self.folder)
            same = {name for name in metrics if there.metrics.get(name, self) == metrics[name]}
            whole = there.weights_sha256 == sha256 and (self.folder / CARD).is_file()
            if whole and metrics.keys() - same <= OF_A_START:
                return  # it was only asked for again: what its trainings took stays what they took
        card = model_card(result, sha256)
        write_model_folder(self.folder, kept.weights, kept.config, metrics, card, force=True)

    def _stopped_line(self, seconds: float) -> str:
        why = {"timeout": "because the time is up", "signal": f"by {self.stop.message}"}
        return (
            f"Stopped {why.get(self.stop.reason, self.stop.message)}, after {duration(seconds)}. Finished "
            "trainings are stored; the test images stay closed."
        )
