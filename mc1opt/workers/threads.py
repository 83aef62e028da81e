"""The threads that keep the workers of a pool busy."""

import contextlib
import math
import threading
from collections.abc import Callable

from mc1opt.workers.pool import Pool
from mc1opt.workers.protocol import TrainingInterrupted
from mc1opt.workers.stop import TICK_SECONDS, StopFlag


def run_crew(
    work: Callable[[], None],
    pool: Pool,
    stop: StopFlag,
    tick: Callable[[float], None],
    most: float = math.inf,
) -> None:
    """Runs `work` in one thread per worker, and returns when all of them have ended.

    Where the pool gains workers, more threads begin.

    Once `stop` is set or its limit is reached, the pool is interrupted; `TrainingInterrupted` ends a thread
    quietly. Any other exception sets `stop`, and the first one is raised at the end.

    Args:
        work: runs in each thread; checks `stop` between two trainings.
        pool: the workers.
        stop: ends the work.
        tick: called in this thread repeatedly; its argument is the longest that it may wait, in seconds.
        most: number of threads at most.
    """
    errors: list[BaseException] = []

    def guarded() -> None:
        try:
            with contextlib.suppress(TrainingInterrupted):
                work()
        except BaseException as error:  # an error in one thread ends all, and must be raised
            errors.append(error)
            stop.set("failures", str(error))

    threads: list[threading.Thread] = []
    interrupted = False
    while not threads or any(thread.is_alive() for thread in threads):
        while len(threads) < min(pool.size, most) and not interrupted:
            threads.append(threading.Thread(target=guarded, name=f"training-{len(threads)}", daemon=True))
            threads[-1].start()
        if stop.is_due() and not interrupted:
            interrupted = True
            pool.interrupt()
        tick(TICK_SECONDS)
    tick(0.0)
    if errors:
        raise errors[0]
