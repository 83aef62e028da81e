"""The flag that ends long work."""

from mc1opt.workers.stop import StopFlag, StopReason


def test_the_first_reason_to_stop_counts() -> None:
    stop = StopFlag()
    assert (stop.is_set(), stop.reason, stop.message) == (False, "finished", "")
    reasons: list[tuple[StopReason, str]] = [("timeout", "the time is up"), ("signal", "SIGINT")]
    for reason, message in reasons:
        stop.set(reason, message)
        assert (stop.is_set(), stop.reason, stop.message) == (True, "timeout", "the time is up")


def test_the_limit_counts_once_it_is_looked_at() -> None:
    stop = StopFlag()
    stop.limit(60.0)
    assert not stop.is_due()
    stop.limit(0.0)
    assert (stop.is_set(), stop.is_due(), stop.reason) == (False, True, "timeout")
