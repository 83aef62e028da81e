"""What was found out of a trial is remembered as long as that trial lives, and not longer."""

import gc

from optuna.trial import FrozenTrial, TrialState, create_trial

from mc1opt.database.memory import once_a_trial


def test_a_finished_trial_is_judged_once_and_a_running_one_each_time() -> None:
    judged: list[int] = []

    def judge(trial: FrozenTrial) -> int:
        judged.append(trial.number)
        return len(judged)

    remembered = once_a_trial(judge)
    done, running = create_trial(value=1.0), create_trial(state=TrialState.RUNNING)
    assert [remembered(done), remembered(done), remembered(running), remembered(running)] == [1, 1, 2, 3]


def test_another_trial_in_the_same_place_is_judged_anew() -> None:
    remembered = once_a_trial(lambda trial: trial.value)
    for value in range(100):  # each takes the memory of the one before
        assert remembered(create_trial(value=float(value))) == value
        gc.collect()
