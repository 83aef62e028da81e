"""What a retraining has found: as JSON, and as lines of text."""

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mc1opt.config import config_id
from mc1opt.database.location import storage_option
from mc1opt.describe import describe_config
from mc1opt.inference.evaluate import confusion_lines
from mc1opt.measurement.final_test import FinalTest
from mc1opt.measurement.store import StoredTraining
from mc1opt.metric import Metric
from mc1opt.models.cost import cost
from mc1opt.program import program
from mc1opt.retraining.comparison import LEAST_SEEDS, LEVEL, TEST_NAME, Comparison, Form, Standing
from mc1opt.retraining.plan import Progress, RetrainOptions, RetrainPlan
from mc1opt.text import duration, first_line, plural
from mc1opt.uncertainty import Spread, spread


@dataclass(frozen=True)
class Retraining:
    """All that a finished retraining has found."""

    options: RetrainOptions
    plan: RetrainPlan
    comparison: Comparison
    winner: Standing
    test: FinalTest
    trainings: Mapping[str, StoredTraining]
    """All trainings of the plan by label, also those of earlier starts."""
    kept: StoredTraining
    """The training of the kept model."""
    planned_seconds: float | None
    """Expected for what was left to train at the last start; None if unknown."""
    seconds: float
    """Of the last start."""

    @property
    def final(self) -> Form:
        """What the winner trained in the end: the model's config and epochs."""
        return self.plan.form(self.winner.candidate, final=True)

    @property
    def compared(self) -> Form:
        """What the winner trained in the comparison."""
        return self.plan.form(self.winner.candidate, final=False)

    @property
    def retrained(self) -> Spread:
        """The winner's validation values over the seeds."""
        return spread(list(self.winner.counted().values()))

    @property
    def fold_values(self) -> list[float]:
        """The winner's validation value by fold; empty without folds."""
        folds = (stored for stored in self.trainings.values() if stored.key.fold is not None)
        return [stored.value for stored in folds if stored.value is not None]

    @property
    def over_folds(self) -> Spread | None:
        """The winner's validation values over the folds; None without folds."""
        return spread(self.fold_values) if self.fold_values else None

    @property
    def tested(self) -> Spread:
        """The metric on the test images, over the seeds of the final trainings."""
        return self.test.spread_of(self.plan.aim.metric)

    @property
    def training_seconds(self) -> float:
        """Of all trainings."""
        return sum(stored.seconds for stored in self.trainings.values())

    @property
    def smaller_steps(self) -> dict[str, int]:
        """Parts of each batch by label, of the trainings that memory was short for: batch norm saw parts."""
        found = {label: stored.accumulation for label, stored in self.trainings.items()}
        return {label: parts for label, parts in found.items() if parts > 1}

    def to_json(self) -> dict[str, Any]:
        """As `retrain --json` prints it."""
        plan, candidate = self.plan, self.winner.candidate
        size = cost(self.final.config.architecture, plan.data.shape)
        return {
            "study": self.options.study,
            "stopped": None,
            "retraining": plan.identity,
            "candidates": [self._standing_json(entry) for entry in self.comparison.standings.values()],
            "early_stopping": TEST_NAME,
            "winner": {
                "trial": candidate.trial,
                "config_id": candidate.config_id,
                "growth": self.final.growth,
                "trained_config_id": config_id(self.final.config),
                "parameters": size.parameters,
                "macs": size.macs,
                **self.retrained.to_json(),
            },
            "test": self.test.to_json(),
            "optimism": {
                "validation_in_search": candidate.in_search,
                "validation_retrained": self.retrained.mean,
                "test": self.tested.mean,
            },
            "metric": plan.aim.metric.identity,
            "class_weights": plan.aim.class_weights,
            "folds": None
            if self.over_folds is None
            else {
                "validation": self.fold_values,
                **self.over_folds.to_json(),
                "seed": plan.seeds[0],
                "train_images": plan.fold_images,
                "std_over_seeds": self.retrained.std,
            },
            "model": str(plan.folder),
            "kept_seed": plan.seeds[0],
            "epochs": self.final.epochs,
            "compared_epochs": self.compared.epochs,
            "train_images": {"comparison": plan.train_images, "final": plan.data.train_images},
            "data": plan.data.model_dump(mode="json", exclude={"folder"}),
            "device": plan.device,
            "precision": plan.precision,
            "workers": plan.workers,
            "planned_seconds": self.planned_seconds,
            "seconds": self.seconds,
            "training_seconds": self.training_seconds,
            "smaller_steps": self.smaller_steps,
            "accumulation": self.kept.accumulation,
            "command": self.options.command,
            "versions": self.kept.versions,
            "commit": self.kept.commit,
        }

    def _standing_json(self, standing: Standing) -> dict[str, Any]:
        values = standing.counted()
        stopped = None
        if standing.stopped_by is not None:
            leader, test = standing.stopped_by
            stopped = {"after_seeds": standing.stopped_after, "leader": leader, "t": test.t, "p": test.p}
        form = self.plan.form(standing.candidate, final=False)
        return {
            "trial": standing.candidate.trial,
            "config_id": standing.candidate.config_id,
            "growth": form.growth,
            "epochs": form.epochs,
            "summary": describe_config(form.config),
            "validation_in_search": standing.candidate.in_search,
            "validation": {str(self.plan.seeds[index]): value for index, value in values.items()},
            **(spread(list(values.values())).to_json() if values else {}),
            "stopped": stopped,
            "failures": {str(self.plan.seeds[i]): message for i, message in standing.failures.items()},
        }


def stopped_json(study: str, reason: str) -> dict[str, Any]:
    """What `retrain --json` prints of a retraining that was stopped: nothing was chosen or tested."""
    nothing = dict.fromkeys(("candidates", "winner", "test", "model"))
    return {"study": study, "stopped": reason, **nothing}


# ---- Lines -----------------------------------------------------------------------------------------------


def plan_line(study: str, plan: RetrainPlan, progress: Progress) -> str:
    """What is about to be trained."""
    seeds = plural(len(plan.seeds), "seed")
    parts = [
        f"{plural(len(plan.candidates), 'candidate')}, {seeds} each, on {plan.train_images:,} images",
        f"the winner, {seeds}, on all {plan.data.train_images:,}",
    ]
    if plan.folds:
        parts.append(f"the winner in {plan.folds} folds")
    done = ""
    if progress.stored:
        done = f" Of them stored already: {progress.stored}"
        spared = plan.trainings - progress.stored - progress.left
        done += f"; spared by early stopping: {spared}." if spared else "."
    seconds = progress.seconds
    left = "duration unknown" if seconds is None else f"about {duration(seconds)}"
    if progress.left == 0:
        left = "nothing is left to train"
    return (
        f"Retraining study {study}: {'; '.join(parts)}. {plural(plan.trainings, 'training')} of "
        f"{_epochs(plan)}, {plural(plan.workers, 'worker')} on {plan.device} "
        f"({plan.precision}); {left}.{done} Ctrl-C keeps every finished training."
    )


def _epochs(plan: RetrainPlan) -> str:
    """How long the plan trains, and how much wider, in words."""
    if plan.epochs:
        return plural(plan.epochs, "epoch")
    ranges = []
    for final in (False, True):
        forms = [plan.form(each, final=final) for each in plan.candidates]
        ranges.append(_range([form.epochs for form in forms]))
    most = max(plan.form(each, final=True).growth for each in plan.candidates)
    wider = f" with up to {most:.1f} times the multiply-accumulates" if most > 1 else ""
    return f"{ranges[0]} epochs to compare, then {ranges[1]}{wider}"


def _range(values: Sequence[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low} to {high}"


def standing_line(standing: Standing) -> str:
    """Why a candidate is out, or in again."""
    name = standing.candidate.name
    if standing.is_active:
        return f"{name} competes again: the candidate that it was clearly worse than is out"
    if standing.stopped_by is None:
        return f"{name} is out: one of its trainings failed ({_failure(standing)})"
    leader, test = standing.stopped_by
    return (
        f"{name} stops early: clearly worse than {leader} over {plural(test.n, 'seed')} "
        f"(difference {test.difference:.4f}, p {test.p:.3f}; {TEST_NAME})"
    )


def result_lines(result: Retraining) -> list[str]:
    """What a retraining says at its end."""
    test, plan = result.test, result.plan
    winner = result.winner.candidate
    lines = [
        "",
        *candidate_lines(result),
        "",
        f"Winner: {winner.name} (config {winner.config_id}), trained on all {plan.data.train_images:,} "
        f"images, {plural(len(plan.seeds), 'seed')}, {plural(result.final.epochs, 'epoch')}.",
        *wider_lines(result),
        *metric_lines(result),
        f"Test accuracy: {test.spread.line()}",
        "  by seed      " + " ".join(f"{value:.4f}" for value in test.by_seed.values()),
        "  by class     "
        + ", ".join(f"{name} {'-' if s is None else f'{s:.3f}'}" for name, s in test.by_class.items()),
        optimism_line(result),
        *smaller_steps_lines(result),
    ]
    if result.over_folds is not None:
        lines.append(folds_line(result.over_folds, result.retrained))
    lines += ["", "The kept model:", *confusion_lines(test.kept, test.class_names)]
    planned = "" if result.planned_seconds is None else f" (planned: {duration(result.planned_seconds)})"
    return [
        *lines,
        "",
        f"Done, after {duration(result.seconds)}{planned}. The model of the first seed is in {plan.folder}.",
        *command_lines(result),
    ]


def metric_lines(result: Retraining) -> list[str]:
    """The metric on the test images, where it is another one than accuracy."""
    metric = result.plan.aim.metric
    return [] if metric.is_accuracy else [f"Test {metric.label}: {result.tested.line()}"]


def optimism_line(result: Retraining) -> str:
    """Values of the winner, each with the epochs and images that it was trained on."""
    plan = result.plan
    of = "" if plan.aim.metric.is_accuracy else f" ({plan.aim.metric.label})"
    search = ""
    if plan.search is not None:
        search = f" ({plural(plan.search.epochs, 'epoch')} of {plan.search.train_images:,} images)"
    return (
        f"Optimism{of}: validation {result.winner.candidate.in_search:.4f} in the search{search}, "
        f"{result.retrained.mean:.4f} retrained ({plural(result.compared.epochs, 'epoch')} of "
        f"{plan.train_images:,}), test {result.tested.mean:.4f} "
        f"({plural(result.final.epochs, 'epoch')} of {plan.data.train_images:,})."
    )


def wider_lines(result: Retraining) -> list[str]:
    """How the model differs from the config that was found; none where it does not."""
    if result.final.config == result.winner.candidate.config:
        return []
    size = cost(result.final.config.architecture, result.plan.data.shape)
    return [
        f"For this longer training its network is wider than in the search: {size.parameters:,} parameters, "
        f"{size.macs / 1e6:.1f} million multiply-accumulates an image, "
        f"{describe_config(result.final.config).split(' | ')[0]}."
    ]


def smaller_steps_lines(result: Retraining) -> list[str]:
    """Which trainings split their batches; none where none did."""
    if not result.smaller_steps:
        return []
    steps = ", ".join(f"{name} in {parts}" for name, parts in result.smaller_steps.items())
    return [f"Memory was short, so that batches were split, which batch norm notices: {steps}."]


def candidate_lines(result: Retraining) -> list[str]:
    """The table of candidates, with the config below each."""
    comparison, winner, plan = result.comparison, result.winner, result.plan
    width = max(6, *(len(name) for name in comparison.standings))
    lines = [
        f"Validation {plan.aim.metric.label} on {plan.data.validation_images:,} images, over seeds "
        f"({TEST_NAME}):",
        f"{'trial':<{width}}  mean    std     95 % interval     by seed",
    ]
    ranked = sorted(
        comparison.standings.values(),
        key=lambda entry: (entry is not winner, -_score(entry, plan.aim.metric), entry.candidate.name),
    )
    for entry in ranked:
        values = list(entry.counted().values())
        mean, std, interval = spread(values).cells() if values else ("-", "-", "-")
        by_seed = " ".join(f"{value:.4f}" for value in values)
        verdict = _verdict(comparison, winner, entry)
        name = f"{entry.candidate.name:<{width}}"
        lines.append(f"{name}  {mean:<7} {std:<7} {interval:<17} {by_seed}  {verdict}".rstrip())
        form = plan.form(entry.candidate, final=False)
        lines += [f"        {part}" for part in describe_config(form.config).split(" | ")]
    return lines


def folds_line(folds: Spread, seeds: Spread) -> str:
    """The spread over folds, and that over seeds."""
    over_seeds = "" if seeds.std is None else f"; over seeds on one split it is {seeds.std:.4f}"
    std = "" if folds.std is None else f"standard deviation {folds.std:.4f} over folds with one seed"
    return f"Cross-validation, {folds.n} stratified folds: mean {folds.mean:.4f}, {std}{over_seeds}."


def command_lines(result: Retraining) -> list[str]:
    """What to do next, to copy."""
    place = storage_option(result.options.storage)
    model = shlex.quote(str(result.plan.folder))
    study = shlex.quote(result.options.study)
    return [
        f"Export it:    {program()} export --study {study} --model {model} --format onnx{place}",
        f"Use it:       {program()} predict {model} IMAGE{place}",
        f"Look again:   {program()} evaluate {model}{place}   (opens the test images, which is recorded)",
    ]


def _verdict(comparison: Comparison, winner: Standing, entry: Standing) -> str:
    if entry is winner:
        return "winner"
    if entry.stopped_by is not None:
        leader, test = entry.stopped_by
        return f"stopped after {plural(test.n, 'seed')}: clearly worse than {leader}, p {test.p:.3f}"
    if entry.failures:
        return f"failed: {_failure(entry)}"
    test_of = comparison.against(winner, entry)
    if test_of is None:
        return f"not tested: fewer than {LEAST_SEEDS} common seeds"
    worse = "clearly worse than" if test_of.p < LEVEL else "not told apart from"
    return f"{worse} the winner, p {test_of.p:.3f}"


def _failure(standing: Standing) -> str:
    return first_line(next(iter(standing.failures.values()), "failed"))


def _score(standing: Standing, metric: Metric) -> float:
    values = list(standing.counted().values())
    return metric.score(spread(values).mean) if values else -math.inf
