"""The live view of a terminal."""

import contextlib
import statistics

import pytest
from rich.cells import cell_len

from mc1opt.describe import describe_config
from mc1opt.display.live import LiveProgress
from mc1opt.text import duration
from tests.support.display import CONFIG, Clock, Terminal, ended, epoch, started, study, trial

SUMMARY = "whitened conv 32m 64m 64 128m, 3x3 same, gelu, batch norm | nesterov 0.2, one-cycle 0.25, batch 64"


class View:
    """A live view on a terminal in memory, on a clock that the test sets, in a search that has begun."""

    def __init__(self, width: int = 120, height: int = 24, **fields: object) -> None:
        self.terminal = Terminal(width, height)
        self.clock = Clock()
        self.live = LiveProgress(self.terminal.console, self.clock)
        self.live.study_started(started(trial(7, value=0.75), **fields))
        self.draw()

    def draw(self) -> list[str]:
        """The lines of the view as it is now."""
        self.clock.seconds += 1
        self.live.tick()
        return self.terminal.view

    def close(self) -> None:
        self.live.study_ended(ended(study()))


def busy_view(width: int, height: int = 24, running: int = 4) -> View:
    """A view with all there is: running trials, ended ones, other counts, an uncertain time, a deadline."""
    view = View(width, height, timeout=3600.0)
    for number, gap in enumerate((9, 200, 30, 100), start=20):  # the first drawing took a second
        view.clock.seconds += gap
        view.live.trial_ended(trial(number, "pruned"))
    message = "out of memory: " + "tried to allocate 2 GiB, " * 8
    view.live.trial_ended(trial(30, "failed", failure={"kind": "out_of_memory", "message": message}))
    for number in range(40, 52):
        view.live.trial_ended(trial(number, "duplicate"))
    for number in range(100, 100 + running):
        view.live.trial_started(number, SUMMARY)
        view.live.epoch(number, epoch(2, 0.7125))
    view.draw()
    return view


def test_each_running_trial_has_a_line_with_epoch_accuracy_difference_to_the_best_and_config() -> None:
    view = View()
    for number in (9, 8):
        view.live.trial_started(number, "mlp 64 | sgd 0.1")
    view.live.epoch(8, epoch(2, 0.7125))
    view.clock.seconds += 41
    lines = [line.split() for line in view.draw() if line.startswith("#")]
    config = ["mlp", "64", "|", "sgd", "0.1"]
    assert lines == [
        ["#8", "3/5", "0.713", "-0.037", "42", "s", *config],
        ["#9", "0/5", "42", "s", *config],
    ]


def test_a_trial_that_has_ended_leaves_its_line_to_the_last_ones() -> None:
    view = View()
    view.live.trial_started(8, SUMMARY)
    view.live.trial_ended(trial(8, value=0.8))
    view.live.trial_ended(trial(9, "pruned"))
    lines = view.draw()
    assert "last   #9 pruned at epoch 3, 0.500   #8 complete, 0.800" in lines
    assert not [line for line in lines if line.startswith("#8")]
    assert lines[-1] == f"best 0.800 (#8): {describe_config(CONFIG)}"


def test_the_counts_and_the_time_left_are_those_of_the_plain_lines() -> None:
    view = busy_view(120)
    mean, spread = 340 / 4, statistics.stdev([10, 200, 30, 100])
    at_most = 95 * mean + 2 * spread * (95 + 95**2 / 4) ** 0.5
    time_left = f"{duration(95 * mean)} left (up to {duration(at_most)}), 54 min to --timeout"
    assert f"5/100 trials | 12 duplicates, 1 failed | {time_left}" in view.terminal.view


@pytest.mark.parametrize("width", [60, 80, 120])
def test_nothing_is_wider_than_the_terminal_and_only_configs_are_cut(width: int) -> None:
    view = busy_view(width)
    for number in range(100, 104):
        (line,) = (line for line in view.terminal.view if line.startswith(f"#{number}"))
        assert line.split()[:6] == [f"#{number}", "3/5", "0.713", "-0.037", "1", "s"]
        assert line.endswith("…") or line.endswith(SUMMARY)
    words = " ".join(view.terminal.view).split()
    assert {"12", "duplicates,", "--timeout", "best", "0.750"} <= set(words)
    view.close()
    assert max(cell_len(line) for line in view.terminal.text.split("\n")) <= width


def test_many_trials_leave_room_for_the_counts() -> None:
    view = busy_view(80, height=24, running=40)
    lines = view.terminal.view
    assert len(lines) <= 24
    assert any("duplicates" in line for line in lines)
    assert any(line.endswith("and 24 more") for line in lines)


def test_it_is_drawn_five_times_a_second_at_most() -> None:
    view = View()
    before = view.terminal.raw
    view.clock.seconds += 0.1
    view.live.tick()
    assert view.terminal.raw == before
    view.clock.seconds += 0.1
    view.live.tick()
    assert view.terminal.raw != before


def test_names_and_messages_are_shown_as_they_are() -> None:
    odd = "[red]x[/red] [/] 'y' \"z\" :smile: 🙂 <b>&amp;"
    view = View(study=odd)
    view.live.trial_started(8, odd)
    view.live.trial_ended(trial(9, "failed", failure={"kind": "crashed", "message": odd}))
    lines = view.draw()
    assert f"Study {odd} (cnn): " in view.terminal.text
    assert any(line.startswith("#8") and line.endswith(odd) for line in lines)
    assert f"last   #9 failed (crashed): {odd}" in lines


@pytest.mark.parametrize("raises", [False, True])
def test_the_terminal_is_restored_at_the_end_also_when_the_search_raises(raises: bool) -> None:
    view = busy_view(80)
    assert not view.terminal.shows_cursor
    with contextlib.suppress(KeyboardInterrupt), view.live:
        if raises:
            raise KeyboardInterrupt
        view.close()
    assert view.terminal.shows_cursor
    assert view.terminal.view == [""]  # the view is gone; what comes next begins on an empty line


def test_a_search_that_never_began_leaves_the_terminal_alone() -> None:
    terminal = Terminal()
    with LiveProgress(terminal.console) as live:
        live.tick()
    assert terminal.raw == ""
