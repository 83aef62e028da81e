"""The threads of a pool: all work, all end, and errors are told."""

import threading
import time

import pytest

from mc1opt.workers.stop import StopFlag
from mc1opt.workers.threads import run_crew
from tests.support.curves import CurvePool, Switches, example_training


def test_the_work_runs_in_so_many_threads_at_once() -> None:
    together, ticks = threading.Barrier(3, timeout=30), []
    run_crew(together.wait, CurvePool(3), StopFlag(), ticks.append)
    assert ticks[-1] == 0.0


def test_no_more_threads_than_wanted_run() -> None:
    begun: list[None] = []
    run_crew(lambda: begun.append(None), CurvePool(3), StopFlag(), time.sleep, 2)
    assert len(begun) == 2


def test_threads_begin_where_a_pool_gains_workers() -> None:
    pool, together = CurvePool(1), threading.Barrier(3, timeout=30)
    met: list[int] = []
    run_crew(lambda: met.append(together.wait()), pool, StopFlag(), lambda _: setattr(pool, "size", 3))
    assert sorted(met) == [0, 1, 2]


@pytest.mark.parametrize("why", ["signal", "timeout"])
def test_a_stop_interrupts_the_pool_and_is_no_error(switches: Switches, why: str) -> None:
    switches.add("hang", epoch=1)
    pool, stop = CurvePool(), StopFlag()

    def on_epoch(_: object) -> bool:
        if why == "signal":
            stop.set("signal", "SIGINT")
        return True

    stop.limit(0.5 if why == "timeout" else None)
    run_crew(lambda: pool.train(example_training(), on_epoch), pool, stop, time.sleep)  # type: ignore[arg-type]
    assert stop.reason == why


@pytest.mark.parametrize("error", [ValueError("broken"), SystemExit(1)])
def test_the_first_error_of_a_thread_stops_the_others_and_is_raised(error: BaseException) -> None:
    stop = StopFlag()

    def work() -> None:
        if not stop.is_set():
            raise error

    with pytest.raises(type(error)):
        run_crew(work, CurvePool(2), stop, time.sleep)
    assert stop.reason == "failures"
