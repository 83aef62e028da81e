"""Which configs compete, and how they are compared: seed by seed, with an early end for the clearly worse."""

import itertools

import numpy as np
import pytest
from scipy import stats

from mc1opt.config import config_id, config_to_json
from mc1opt.database.records import TrialRecord
from mc1opt.errors import UsageError
from mc1opt.retraining.comparison import LEVEL, Comparison, choose_candidates
from tests.support.retraining import candidate, record_of, small_config, trial_record


def trial(
    number: int, value: float | None, again: tuple[float | None, ...] = (), **changes: object
) -> TrialRecord:
    """A stored trial; its config is one of its own, unless `changes` say another."""
    own = small_config(number + 1)
    fields = {
        "state": "PRUNED" if value is None else "COMPLETE",
        "outcome": "pruned" if value is None else "complete",
        "value": value,
        "config": config_to_json(own),
        "config_id": config_id(own),
        "values_by_epoch": [0.1],
        "confirmations": [{"seed": seed, "value": v} for seed, v in enumerate(again)],
        "epoch_seconds": 1.0,
    }
    return trial_record(number, **(fields | changes))


# ---- Which ones ------------------------------------------------------------------------------------------


def test_the_best_come_first_by_confirmed_mean_or_else_by_value() -> None:
    record = record_of(
        trial(0, 0.70),
        trial(1, 0.90, (0.60, 0.64)),
        trial(2, 0.80, (0.75, 0.77)),
        trial(3, None),
        trial(4, 0.65, (None, 0.74)),
    )
    assert [c.trial for c in choose_candidates(record, top=10)] == [2, 4, 0, 1]
    assert [c.trial for c in choose_candidates(record, top=2)] == [2, 4]
    assert choose_candidates(record, top=1)[0].in_search == 0.80
    (named,) = choose_candidates(record, top=3, trial=0)
    assert (named.trial, named.config) == (0, small_config(1))


def test_configs_are_distinct_and_equals_are_taken_in_the_order_of_their_numbers() -> None:
    same = {"config": config_to_json(small_config(1)), "config_id": config_id(small_config(1))}
    record = record_of(trial(0, 0.7), trial(1, 0.8, **same), trial(2, 0.7))
    assert [c.trial for c in choose_candidates(record, top=3)] == [1, 2]
    assert [c.trial for c in choose_candidates(record_of(trial(5, 0.5), trial(6, 0.5)), top=2)] == [5, 6]


@pytest.mark.parametrize(
    ("trials", "number", "message"),
    [
        ([0.7, None], 1, r"trial 1 of study 's' .*pruned at epoch 1"),
        ([0.7, None], 2, "no trial 2; its trials are 0 to 1"),
        ([None], None, "study 's' has no finished trial"),
    ],
)
def test_what_is_no_candidate_is_refused(
    trials: list[float | None], number: int | None, message: str
) -> None:
    record = record_of(*(trial(index, value) for index, value in enumerate(trials)))
    with pytest.raises(UsageError, match=message):
        choose_candidates(record, top=3, trial=number)


# ---- The comparison --------------------------------------------------------------------------------------

SEEDS = 5
VALUES = {
    "#1": [0.80, 0.81, 0.82, 0.80, 0.81],
    "#2": [0.81, 0.80, 0.81, 0.81, 0.80],
    "#3": [0.70, 0.711, 0.72, 0.70, 0.71],
    "#4": [0.788, 0.80, 0.811, 0.789, 0.80],
}


def comparison(trials: list[int], seeds: int = SEEDS) -> Comparison:
    return Comparison([candidate(number) for number in trials], seeds, 5000)


def compared(order: list[tuple[str, int]]) -> Comparison:
    """The comparison of `VALUES`, whose trainings end in this order (name, seed)."""
    result = comparison([1, 2, 3, 4])
    for number, seed in order:
        if result.wanted(number, seed):
            result.add(number, seed, VALUES[number][seed])
    return result


IN_ORDER = [(number, seed) for seed in range(SEEDS) for number in VALUES]


def test_a_candidate_stops_when_the_test_over_the_common_seeds_is_below_its_level() -> None:
    result = compared(IN_ORDER)
    active, stopped = set(VALUES), {}
    looks, pairs = 3, 6
    for seeds in range(3, SEEDS):
        first = {number: VALUES[number][:seeds] for number in sorted(active)}
        # Rounded, because the means of 1 and 2 are equal.
        leader = max(first, key={number: round(np.mean(values), 9) for number, values in first.items()}.get)
        for other in active - {leader}:
            if looks * pairs * stats.ttest_rel(first[leader], first[other]).pvalue < 0.05:
                stopped[other] = (seeds, leader)
        active -= stopped.keys()
    assert {number: seeds for number, (seeds, _) in stopped.items()} == {"#3": 3, "#4": 4}
    for number, standing in result.standings.items():
        leader = standing.stopped_by and standing.stopped_by[0]
        assert (standing.stopped_after, leader) == stopped.get(number, (None, None))
    assert result.winner().candidate.trial == 1


def test_the_verdicts_do_not_depend_on_the_order_in_which_trainings_end() -> None:
    expected = compared(IN_ORDER)
    generator = np.random.default_rng(0)
    for _ in range(50):
        order = [IN_ORDER[i] for i in generator.permutation(len(IN_ORDER))]
        result = compared(order)
        for number, standing in result.standings.items():
            assert standing.stopped_after == expected.standings[number].stopped_after
            assert standing.stopped_by == expected.standings[number].stopped_by
            assert standing.counted() == expected.standings[number].counted()
        assert result.winner() is result.standings["#1"]


def test_a_stopped_candidate_is_not_wanted_with_further_seeds() -> None:
    result = compared([(n, s) for n, s in IN_ORDER if s < 3])
    assert [result.wanted("#3", seed) for seed in range(4)] == [True, True, True, False]
    assert result.wanted("#2", 4)
    few = comparison([1, 2, 3, 4], seeds=2)  # with which nobody is stopped
    assert [few.add(n, seed, VALUES[n][seed]) for n, seed in itertools.product(VALUES, range(2))] == [[]] * 8
    assert few.winner().candidate.trial == 1  # of two equal means, the candidate that comes first


def test_a_candidate_whose_training_fails_is_out_and_the_others_go_on() -> None:
    result = comparison([1, 2], seeds=2)
    result.add("#1", 0, 0.9)
    (out,) = result.add("#2", 0, None, "the loss is nan")
    assert (out.candidate.trial, out.failures) == (2, {0: "the loss is nan"})
    assert (result.wanted("#2", 1), result.winner()) == (False, None)
    result.add("#1", 1, 0.9)
    assert result.winner().candidate.trial == 1


def test_a_failure_counts_from_its_own_seed_on() -> None:
    """Known early or late, it must not change what is trained."""
    early, late = comparison([1, 2, 3]), comparison([1, 2, 3])
    pairs = [(n, seed) for seed in (0, 1, 2) for n in ("#1", "#2", "#3")]
    early.add("#2", 3, None, "failed")
    for result in (early, late):
        for number, seed in pairs:
            result.add(number, seed, VALUES[number][seed])
    late.add("#2", 3, None, "failed")
    for result in (early, late):
        result.add("#1", 3, VALUES["#1"][3])
        assert result.standings["#3"].stopped_after == 3  # for it was worse than 1
        assert result.standings["#2"].failed


def test_what_was_stopped_for_being_worse_than_one_that_fails_competes_again() -> None:
    """The order in which trainings end is no matter; without it nobody would be left to win."""
    ends = [(number, seed, VALUES[number][seed]) for seed in range(3) for number in ("#1", "#3")]
    ends.append(("#1", 3, None))
    for order in (ends, [*ends[-1:], *ends[:-1]]):
        result = comparison([1, 3])
        changed = [entry.candidate.trial for end in order for entry in result.add(*end)]
        assert changed == [3, 1, 3]  # out, failed, in again
        assert [result.wanted("#3", seed) for seed in range(SEEDS)] == [True] * SEEDS
        assert result.winner() is None
        for seed in (3, 4):
            result.add("#3", seed, VALUES["#3"][seed])
        assert result.winner().candidate.trial == 3
        assert result.standings["#3"].stopped_by is None


def test_one_that_competes_again_may_be_stopped_by_another() -> None:
    result = comparison([1, 2, 3])
    for seed in (0, 1, 2):
        for number, value in (
            ("#1", VALUES["#1"][seed] + 0.1),
            ("#2", VALUES["#1"][seed]),
            ("#3", VALUES["#3"][seed]),
        ):
            result.add(number, seed, value)
    assert {n: s.stopped_by and s.stopped_by[0] for n, s in result.standings.items()} == {
        "#1": None,
        "#2": "#1",
        "#3": "#1",
    }
    result.add("#1", 3, None, "failed")
    assert result.standings["#2"].is_active
    assert (result.standings["#3"].stopped_by[0], result.standings["#3"].stopped_after) == ("#2", 3)


@pytest.mark.parametrize(("count", "seeds"), [(2, 3), (3, 3), (3, 5), (3, 10)])
def test_equal_candidates_are_rarely_called_worse(count: int, seeds: int) -> None:
    """In no more than 5 % of comparisons, whatever is looked at; 10 are allowed beyond, of 300."""
    generator = np.random.default_rng(count * seeds)
    wrong = 0
    for _ in range(300):
        result = comparison(list(range(1, count + 1)), seeds)
        for seed in range(seeds):
            for name in result.standings:
                if result.wanted(name, seed):
                    result.add(name, seed, round(0.8 + 0.003 * generator.standard_normal(), 4))
        winner = result.winner()
        others = [each for each in result.standings.values() if each is not winner]
        tests = [each.stopped_by[1] if each.stopped_by else result.against(winner, each) for each in others]
        wrong += any(test.p < LEVEL for test in tests)
    assert wrong <= 15 + 10


def test_the_others_are_tested_against_the_winner() -> None:
    result = compared(IN_ORDER)
    winner = result.winner()
    test = result.against(winner, result.standings["#2"])
    expected = stats.ttest_rel(VALUES["#1"], VALUES["#2"])
    assert test.t == pytest.approx(expected.statistic)
    assert test.p == min(1.0, 18 * expected.pvalue) == 1.0
    assert result.against(winner, winner) is None
