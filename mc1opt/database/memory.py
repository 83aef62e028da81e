"""What was found out of a finished trial, remembered as long as Optuna's cache keeps that trial.

A search looks through all trials several times for each one that it trains: of thousands, nothing may be
computed again.
"""

import weakref
from collections.abc import Callable
from typing import TypeVar

from optuna.trial import FrozenTrial

T = TypeVar("T")


def once_a_trial(judge: Callable[[FrozenTrial], T]) -> Callable[[FrozenTrial], T]:
    """`judge`, called once for each finished trial: nothing that it looks at may change any more."""
    found: dict[int, tuple[weakref.ref[FrozenTrial], T]] = {}

    def remembered(trial: FrozenTrial) -> T:
        key = id(trial)
        known = found.get(key)
        if known is not None and known[0]() is trial:
            return known[1]
        verdict = judge(trial)
        if trial.state.is_finished():
            found[key] = weakref.ref(trial, lambda _: found.pop(key, None)), verdict
        return verdict

    remembered.__doc__ = judge.__doc__
    return remembered
