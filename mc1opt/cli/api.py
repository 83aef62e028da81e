"""`mc1opt.run`: the search of `mc1opt run` from Python, and what both do alike.

In a script and in a notebook: results are returned, errors are raised, and progress is printed.
"""

import contextlib
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any, TextIO, TypedDict, Unpack

from mc1opt.cli.options import given_engine, wandb_mode
from mc1opt.cli.values import at_least, parse_duration
from mc1opt.errors import SearchStoppedError

if TYPE_CHECKING:
    from mc1opt.database.records import StudyRecord
    from mc1opt.search.observers import SearchEnded
    from mc1opt.search.settings import SearchCommand
    from mc1opt.workers.stop import StopFlag


class SearchOptions(TypedDict, total=False):
    """The options of `mc1opt run` that have a default; `mc1opt run --help` says what each does."""

    name: str | None
    storage: str
    files: str | os.PathLike[str] | None
    epochs: int | None
    train_images: int | None
    seed: int | None
    timeout: str | None
    """Such as "8m", as on the command line; `max_trial_time`, too."""
    patience: int | None
    until: float | None
    workers: str
    worker_cpus: int
    worker_gpus: float | None
    device: str
    ray: str | None
    sampler: str | None
    pruner: str | None
    max_macs: int | None
    max_trial_time: str | None
    max_failures: int
    confirm: int
    keep: int
    starting_points: bool
    begin_from: str | None
    """The name of a study, as `--from`."""
    data: str | os.PathLike[str] | None
    image_size: int | None
    max_unreadable: int | None


LEAST = {
    "trials": 1,
    "patience": 1,
    "epochs": 1,
    "train_images": 1,
    "max_macs": 1,
    "max_failures": 1,
    "confirm": 0,
    "keep": 0,
    "seed": 0,
    "max_unreadable": 0,
}
"""The least value of each option that has one."""


def search_command(study: str, trials: int = 100, **options: Unpack[SearchOptions]) -> "SearchCommand":
    """The options of a search, checked as far as they can be without study and images.

    Raises:
        UsageError: a value is not allowed.
        TypeError: there is no such option.
    """
    given: dict[str, Any] = {"trials": trials, **options}
    for name, least in LEAST.items():
        at_least(given.get(name), least, f"--{name.replace('_', '-')}")
    given["timeout"] = parse_duration(given.get("timeout"), "--timeout")
    limit = parse_duration(given.pop("max_trial_time", "2h"), "--max-trial-time")

    from mc1opt.data.named import data_path
    from mc1opt.database.location import default_storage, user_storage, with_files
    from mc1opt.paths import user_path
    from mc1opt.search.settings import SearchCommand

    files = given.pop("files", None)
    storage = user_storage(given.get("storage", default_storage()))
    given["storage"] = with_files(storage, None if files is None else user_path(os.fspath(files)))
    if given.get("data") is not None:
        given["data"] = data_path(os.fspath(given["data"]))
    engine = given_engine(
        given["storage"],
        given.pop("workers", "auto"),
        given.pop("device", "auto"),
        given.pop("worker_cpus", 1),
        given.pop("worker_gpus", None),
        given.pop("ray", None),
    )
    return SearchCommand(study=study, max_trial_seconds=limit, engine=engine, **given)


def shown_search(
    command: "SearchCommand",
    *,
    stop: "StopFlag",
    output: TextIO,
    wandb: str | None = None,
    on_start: Callable[[], None] = lambda: None,
) -> "SearchEnded":
    """Searches, with everything that accompanies a search: progress and summary, dashboard, mirror, report.

    Args:
        command: the options.
        stop: ends the search.
        output: receives the progress and the summary.
        wandb: see `--wandb`.
        on_start: called when the search begins, once data and database are open.

    Raises:
        Mc1optError: wrong use, or a failure.
    """
    mode = wandb_mode(wandb)

    from mc1opt.dashboard.pages import DashboardWriter
    from mc1opt.display.live import display
    from mc1opt.display.tables import end_lines
    from mc1opt.mirror.observer import mirrored_search
    from mc1opt.report.page import write_or_warn
    from mc1opt.search.command import search

    def write(line: str) -> None:
        print(line, file=output, flush=True)

    with mirrored_search(mode, command.storage, write) as mirrors:
        ended = search(
            command,
            stop=stop,
            output=output,
            on_start=on_start,
            display=display(output),
            observers=(DashboardWriter(command.storage), *mirrors),
        )
        for line in end_lines(ended, command.storage):
            write(line)
    if ended.reason != "signal":  # who stops a search does not wait for a page
        write_or_warn(command.storage, ended.record.study, write, write)
    return ended


def run(
    study: str, trials: int = 100, *, wandb: str | None = None, **options: Unpack[SearchOptions]
) -> "StudyRecord":
    """See `mc1opt.run`."""
    from mc1opt.workers.stop import StopFlag

    stop = StopFlag()
    command = search_command(study, trials, **options)
    with warnings.catch_warnings(), _interruptible(stop) as leave_to_the_work:
        warnings.filterwarnings("ignore", CHOICES_WARNING)
        ended = shown_search(command, stop=stop, output=sys.stdout, wandb=wandb, on_start=leave_to_the_work)
    if ended.reason == "failures":
        raise SearchStoppedError(ended.message)
    if ended.reason == "signal":
        raise KeyboardInterrupt
    return ended.record


CHOICES_WARNING = "Choices for a categorical distribution"
"""The beginning of a warning of Optuna's; `mc1opt.search.json_values` checks choices."""


@contextlib.contextmanager
def _interruptible(stop: "StopFlag") -> Iterator[Callable[[], None]]:
    """Ctrl-C, or a notebook's stop button, ends the block in good order instead of in the middle.

    Yields:
        To be called once the work checks the flag; until then an interrupt raises KeyboardInterrupt.
    """
    working = False

    def leave_to_the_work() -> None:
        nonlocal working
        working = True

    def handle(number: int, _frame: FrameType | None) -> None:
        if not working:
            raise KeyboardInterrupt
        stop.set("signal", signal.Signals(number).name)

    if threading.current_thread() is not threading.main_thread():  # interrupts reach the main thread alone
        yield leave_to_the_work
        return
    before = signal.signal(signal.SIGINT, handle)
    try:
        yield leave_to_the_work
    finally:
        signal.signal(signal.SIGINT, before)
