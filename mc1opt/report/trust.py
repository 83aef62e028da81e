"""Whether a study's results can be believed: what speaks for and against them, the gravest first."""

import statistics
from dataclasses import dataclass
from typing import Literal

from mc1opt.database.ranking import distinguishable, gain
from mc1opt.database.records import StudyRecord, by_value
from mc1opt.display.tables import pruning_line
from mc1opt.report.facts import Facts
from mc1opt.text import few, plural
from mc1opt.uncertainty import binomial_difference, least_difference, rank_correlation

Verdict = Literal["bad", "unsure", "good"]
ORDER: tuple[Verdict, ...] = ("bad", "unsure", "good")

MANY_FAILURES = 0.1
"""Share of the trials from which on failures are grave: a part of the search space was hardly searched."""
RANKS_WELL = 0.7
"""A rank correlation from which on an early value is a good reason to end a trial."""
RANKS_BADLY = 0.4
"""One below which it is hardly better than chance, with as few trials as a study has."""
LEAST_TRIALS = 8
"""Trials that tell a rank correlation."""


@dataclass(frozen=True)
class Check:
    """One reason to believe the results, or not to."""

    verdict: Verdict
    title: str
    text: str


def checks(facts: Facts) -> list[Check]:
    """All that can be said of a study with a complete trial, the gravest first."""
    found = [
        _test_images(facts),
        _lead(facts),
        _validation_and_test(facts),
        _replay(facts),
        _starting_point(facts.record),
        _failures(facts.record),
        _pruning(facts.record),
        _data(facts),
    ]
    told = [check for check in found if check is not None]
    return sorted(told, key=lambda check: ORDER.index(check.verdict))


def _test_images(facts: Facts) -> Check:
    title = "Test images"
    openings = facts.openings
    if facts.model is None:
        if openings:
            return Check("unsure", title, f"Opened {plural(len(openings), 'time')}: {few(openings)}.")
        return Check("unsure", title, "Closed: nothing was tested. All values are of validation images.")
    before = facts.model.folder.metrics["test"].get("opened_before", [])
    if before:
        text = f"Opened {plural(len(before), 'time')} before the model was tested: {few(before)}."
        return Check("bad", title, f"{text} They are no independent test of what was chosen since.")
    after = len(openings) - 1
    later = (
        f" Opened {plural(after, 'time')} since, which changes nothing that was chosen." if after > 0 else ""
    )
    return Check("good", title, f"Opened once, after all choices: {few(openings[:1])}.{later}")


def _lead(facts: Facts) -> Check:
    title = "Ahead by more than luck"
    if facts.model is not None:
        found = _lead_when_retrained(facts.model.folder.metrics, facts.model.found.trial)
        if found is not None:
            return found
    told = distinguishable(facts.record)
    if told is None:
        return Check(
            "bad",
            title,
            "No trial was trained with two new seeds: the best of many values is also the luckiest.",
        )
    noise = f"seed noise is {facts.record.metric.difference(told.noise)} {facts.record.metric.unit}"
    names = [f"#{number}" for number in told.equal]
    if told.is_ahead:
        return Check("good", title, f"With new seeds {names[0]} is ahead of the others; {noise}.")
    if len(names) == 1:
        return Check("unsure", title, f"Only {names[0]} was trained with new seeds; {noise}.")
    return Check("unsure", title, f"{few(names)} cannot be told apart with new seeds; {noise}.")


def _lead_when_retrained(metrics: dict[str, object], winner: int) -> Check | None:
    """Of the finalists' trainings; None where the winner was the only one."""
    title = "Ahead by more than luck"
    entries = metrics.get("candidates")
    if not isinstance(entries, list) or len(entries) < 2:
        return None
    values = {
        number: list(entry["validation"].values())
        for number, entry in enumerate(entries)
        if entry["validation"]
    }
    first = next((number for number in values if entries[number]["trial"] == winner), None)
    if first is None or len(values) < 2:
        return None
    means = {number: statistics.fmean(each) for number, each in values.items()}
    second = min((number for number in values if number != first), key=lambda n: abs(means[first] - means[n]))
    least = least_difference(values, first, second)
    if least is None:
        return Check("bad", title, "Each finalist was retrained once: nothing is known of seed noise.")
    lead = abs(means[first] - means[second])
    text = (
        f"Retrained, #{winner} is {100 * lead:.2f} points from the next one; seeds explain {100 * least:.2f}."
    )
    return Check("good" if lead > least else "unsure", title, text)


def _validation_and_test(facts: Facts) -> Check | None:
    if facts.model is None or not facts.record.metric.is_share:
        return None
    optimism = facts.model.folder.metrics.get("optimism", {})
    images = facts.model.folder.metrics["test"].get("images")
    if not images or not {"validation_retrained", "test"} <= optimism.keys():
        return None
    fall = optimism["validation_retrained"] - optimism["test"]
    chance = binomial_difference(min(max(optimism["test"], 0.0), 1.0), images)
    text = (
        f"{optimism['validation_retrained']:.4f} on validation, {optimism['test']:.4f} on test images, after "
        f"training on all. The choice of images explains {100 * chance:.1f} points."
    )
    return Check("bad" if fall > chance else "good", "From validation to test", text)


def _replay(facts: Facts) -> Check:
    title = "Repeatable"
    differing = [line for line in facts.replays if line.get("equal") is False]
    if differing:
        numbers = few([f"#{line.get('trial')}" for line in differing])
        return Check("bad", title, f"Trained again, {numbers} had another curve.")
    equal = [line for line in facts.replays if line.get("equal")]
    if equal:
        numbers = few([f"#{line.get('trial')}" for line in equal])
        return Check(
            "good", title, f"Trained again with its seed, {numbers} had the same curve, bit for bit."
        )
    return Check("unsure", title, "No trial was trained again with its seed: mc1opt replay does it.")


def _starting_point(record: StudyRecord) -> Check | None:
    title = "Found by the search"
    metric = record.metric
    if (added := gain(record)) is not None:
        low, high = (metric.difference(each, "+") for each in added.interval)
        text = (
            f"With new seeds the best sampled trial, #{added.sampled}, is "
            f"{metric.difference(added.points, '+')} {metric.unit} from the best starting point, "
            f"#{added.given} (95 % interval {low} to {high})."
        )
        verdict: Verdict = "good" if added.interval[0] > 0 else "bad" if added.interval[1] < 0 else "unsure"
        return Check(verdict, title, text)
    complete = by_value(record.trials)
    if not any(trial.starting_point for trial in complete):
        return Check("good", title, "No starting point was given: all that was found is the search's.")
    if complete[0].starting_point:
        return Check("unsure", title, f"The best trial, #{complete[0].number}, is a starting point.")
    return Check("unsure", title, "Not told: the best starting point was not trained with new seeds.")


def _failures(record: StudyRecord) -> Check:
    title = "Failures"
    trained = [t for t in record.trials if t.outcome in ("complete", "pruned", "failed")]
    kinds = [(t.failure or {}).get("kind", "unknown") for t in trained if t.outcome == "failed"]
    if not kinds:
        return Check("good", title, "None.")
    share = len(kinds) / len(trained)
    what = few([f"{kinds.count(kind)} {kind.replace('_', ' ')}" for kind in sorted(set(kinds))])
    text = f"{share:.0%} of the trials failed: {what}."
    return Check("bad" if share >= MANY_FAILURES else "unsure", title, text)


def _pruning(record: StudyRecord) -> Check | None:
    """How much pruning may have cost, by how early values rank what was trained to the end."""
    title = "Pruning"
    pruned = [len(trial.values_by_epoch) for trial in record.trials if trial.outcome == "pruned"]
    if not pruned:
        return Check("good", title, "No trial was ended early.")
    epoch = statistics.mode(pruned)
    found = dict(early_ranks(record)).get(epoch)
    saved = pruning_line(record)
    if found is None:
        return Check("unsure", title, f"{saved} Too few trials were trained to the end to say what it cost.")
    verdict: Verdict = "good" if found >= RANKS_WELL else "unsure" if found >= RANKS_BADLY else "bad"
    text = (
        f"{saved} Most ended after epoch {epoch}. Of trials that went on, its values rank as the last ones "
        f"do with a correlation of {found:.2f}; of those that were ended nobody knows."
    )
    return Check(verdict, title, text)


def early_ranks(record: StudyRecord) -> list[tuple[int, float]]:
    """For each epoch, from 1, its rank correlation with the end, over complete trials; empty for too few."""
    complete = [trial for trial in by_value(record.trials) if len(trial.values_by_epoch) > 1]
    longest = max((len(trial.values_by_epoch) for trial in complete), default=0)
    curves = [trial.values_by_epoch for trial in complete if len(trial.values_by_epoch) == longest]
    if len(curves) < LEAST_TRIALS:
        return []
    ends = [curve[-1] for curve in curves]
    found = [
        (epoch + 1, rank_correlation([curve[epoch] for curve in curves], ends))
        for epoch in range(longest - 1)
    ]
    return [(epoch, correlation) for epoch, correlation in found if correlation is not None]


def _data(facts: Facts) -> Check | None:
    title = "Data"
    if facts.examination is None:
        return None
    serious = [finding for finding in facts.examination.findings if finding.serious]
    if serious:
        return Check("bad", title, " ".join(finding.what for finding in serious))
    if not facts.examination.counts:
        return Check("unsure", title, "Not compared with the test images: mc1opt data does it.")
    return Check(
        "good", title, "Nothing grave was found in them, nor of training images among the test images."
    )
