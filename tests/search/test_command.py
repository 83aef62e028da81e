"""From the options of `run` to a running search, and all that it prints."""

import contextlib
import fcntl
import io
import os
import pty
import re
import struct
import termios
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

import optuna
import pytest
from rich.cells import cell_len

from mc1opt.database import records
from mc1opt.database.location import checkpoints_folder
from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.trial_files import kept_weights, study_folder
from mc1opt.display.live import display
from mc1opt.display.tables import counts_line, end_lines
from mc1opt.errors import StorageError, UsageError
from mc1opt.search import command as command_module
from mc1opt.search.command import search
from mc1opt.search.observers import SearchEnded
from mc1opt.search.settings import SearchCommand
from mc1opt.seeds import derive_seed
from mc1opt.workers import engine as engine_module
from mc1opt.workers.pool import ProcessPool
from mc1opt.workers.stop import StopFlag
from tests.support.curves import TRAINER, CurvePool, Switches, with_engine
from tests.support.display import plain
from tests.support.image_sets import write_arrays_folder
from tests.support.studies import stored

WIDTH = 80


@pytest.fixture(autouse=True)
def _images_and_curves(monkeypatch: pytest.MonkeyPatch) -> None:
    """200 images, 20 of them for validation; and no processes, but where a test asks for them."""
    write_arrays_folder(Path("images"), train_images=200, test_images=20)
    monkeypatch.setattr(engine_module, "ProcessPool", lambda size, **_: CurvePool(size))


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Real workers."""
    monkeypatch.setattr(engine_module, "ProcessPool", ProcessPool)


def run(output: TextIO | None = None, stop: StopFlag | None = None, **options: Any) -> SearchEnded:
    """A search with workers that train learning curves."""
    given = {"study": "mlp", "trials": 2, "storage": "s.db", "workers": "1", "device": "cpu", "confirm": 0}
    given |= {"epochs": 2}
    command = SearchCommand(data=Path("images"), **with_engine(given | options))
    output = output or io.StringIO()
    ended = search(command, stop=stop or StopFlag(), output=output, display=display(output), trainer=TRAINER)
    for line in end_lines(ended, command.storage):
        print(line, file=output, flush=True)
    return ended


def without_findings(text: str) -> str:
    """What was written, without what is found of the images: they are few."""
    return "\n".join(line for line in text.split("\n") if not line.startswith("! "))


class PseudoTerminal:
    """A terminal of the operating system; `file` is the program's side, what came through is kept."""

    def __init__(self) -> None:
        self._master, slave = pty.openpty()
        fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, WIDTH, 0, 0))
        self.file = os.fdopen(slave, "w")
        self.raw = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        seen = b""
        with contextlib.suppress(OSError):  # the other side was closed
            while part := os.read(self._master, 65536):
                seen += part
        self.raw = seen.decode()

    def close(self) -> None:
        """Afterwards `raw` is whole."""
        self.file.close()
        self._reader.join()
        os.close(self._master)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[PseudoTerminal]:
    monkeypatch.setenv("TERM", "xterm-256color")
    for name in ("COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    made = PseudoTerminal()
    yield made
    if not made.file.closed:
        made.close()


# ---- Options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"study": "mpl"}, "'mpl'"),
        ({"sampler": "magic"}, "sampler 'magic'"),
        ({"pruner": "magic"}, "pruner 'magic'"),
        ({"device": "tpu"}, "'tpu'"),
        ({"workers": "none"}, "--workers 'none'"),
        ({"train_images": 181}, "--train-images 181 .* 200 .* 20 .* 180 "),
    ],
)
def test_wrong_options_are_refused_before_anything_is_made(options: dict[str, Any], named: str) -> None:
    with pytest.raises(UsageError, match=named):
        run(**options)
    # The number of images is known from their cache.
    assert {path.name for path in Path().iterdir()} - {"cache"} == {"images"}


def test_a_study_of_more_images_than_there_are_is_named() -> None:
    made = optuna.create_study(storage=open_storage("s.db", create=True), study_name="mlp")
    made.set_user_attr(records.FIDELITY, {"train_images": 360, "epochs": 2})
    with pytest.raises(UsageError, match=r"'mlp' .* 360 .* 180 "):
        run()


def test_the_fidelity_is_the_commands_else_the_studys_else_the_definitions() -> None:
    run(trials=1)
    fidelity = stored(name="mlp").fidelity
    assert fidelity is not None
    assert fidelity.epochs == 2  # the definition has 5
    assert fidelity.train_images == 180  # the definition has 20,000, which these images are not
    run(trials=2, epochs=None)
    assert [len(trial.values_by_epoch) for trial in stored(name="mlp").trials] == [2, 2]
    with pytest.raises(UsageError, match=r'"epochs": 2}.*"epochs": 3}'):
        run(trials=3, epochs=3)


@pytest.mark.parametrize(("train_images", "validation"), [(160, "unused"), (161, "held_out")])
def test_unused_images_validate_a_new_study_where_there_are_enough(
    train_images: int, validation: str
) -> None:
    run(trials=1, train_images=train_images)
    fidelity = stored(name="mlp").fidelity
    assert fidelity is not None
    assert fidelity.validation == validation


def test_a_study_may_begin_without_its_starting_points() -> None:
    run(trials=1, starting_points=False)
    run(trials=2)
    assert [trial.starting_point for trial in stored(name="mlp").trials] == [None, None]


def test_a_study_begins_from_another_one_of_a_database_that_there_is() -> None:
    with pytest.raises(StorageError, match=r"s\.db"):
        run(name="wider", begin_from="mlp")
    assert not Path("s.db").exists()
    run()
    run(name="wider", begin_from="mlp", max_macs=100_000_000)
    begun = stored(name="wider").begun_from
    assert begun is not None
    assert (begun.study, begun.fit, begun.compares) == ("mlp", 2, True)


def test_a_study_of_before_goes_on_with_the_images_that_were_held_out() -> None:
    run(trials=1, train_images=100)
    study = load_study(open_storage("s.db", create=False), "mlp")
    study.set_user_attr(records.FIDELITY, {"train_images": 100, "epochs": 5})
    run(trials=2, epochs=None)
    assert study.trials[1].user_attrs[records.FIDELITY] == {"train_images": 100, "epochs": 5}


GRID_STUDY = (
    "from mc1opt.config import MLP, SGD, Config\n"
    "SAMPLER, PRUNER, EPOCHS = 'grid', 'none', 2\n"
    "GRID = {'rate': [0.1, 0.2, 0.3]}\n"
    "def search_space(trial):\n"
    "    rate = trial.suggest_float('rate', 0.1, 1.0)\n"
    "    return Config(architecture=MLP(layers=()), optimizer=SGD(learning_rate=rate), batch_size=10)\n"
)


@pytest.mark.parametrize("start", [{}, {"rate": 0.5}, {"rate": 0.2}], ids=str)
def test_a_grid_is_searched_whole_and_starting_points_take_no_point_of_it(start: dict[str, float]) -> None:
    Path("studies").mkdir()
    points = f"STARTING_POINTS = {{'mine': {start}}}\n" if start else ""
    Path("studies/mine.py").write_text(GRID_STUDY + points)
    output = io.StringIO()
    ended = run(output, study="mine", trials=100)
    assert ended.reason == "finished"
    rates = sorted(trial.params["rate"] for trial in ended.record.trials if trial.outcome == "complete")
    assert rates == sorted({0.1, 0.2, 0.3, *start.values()})
    assert without_findings(output.getvalue()).startswith(f"Study mine: {len(rates)} trials to train")


def test_a_study_keeps_its_sampler_and_pruner_until_a_command_names_others() -> None:
    run(trials=1, sampler="random", pruner="none")
    run(trials=2)
    study = optuna.load_study(study_name="mlp", storage="sqlite:///s.db")
    assert (study.user_attrs["mc1opt_sampler"], study.user_attrs["mc1opt_pruner"]) == ("random", "none")
    run(trials=3, pruner="halving")
    study = optuna.load_study(study_name="mlp", storage="sqlite:///s.db")
    assert (study.user_attrs["mc1opt_sampler"], study.user_attrs["mc1opt_pruner"]) == ("random", "halving")


# ---- What is printed -------------------------------------------------------------------------------------


def test_a_file_gets_plain_lines_from_the_plan_to_the_commands_to_copy(processes: None) -> None:
    output = io.StringIO()
    options = {"workers": "2", "epochs": None, "keep": 1, "sampler": "tpe", "pruner": "none"}
    ended = run(output, trials=4, confirm=1, **options)
    assert "20 validation images can show a difference of" in output.getvalue()
    lines = without_findings(output.getvalue()).split("\n")
    assert lines[0].startswith("Study mlp: 4 trials to train, each at most 40 epochs of 180 images of own-")
    counted = [int(line.split("/")[0]) for line in lines if re.match(r"\d+/4  #\d+ (complete|pruned)", line)]
    assert counted == [1, 2, 3, 4]
    assert sum("again, with a new seed: 0." in line for line in lines) == 2
    assert "\x1b" not in output.getvalue()
    done = next(line for line in lines if line.startswith("Done, after "))
    assert done.endswith(f"Trials: {counts_line(ended.record.trials)}.")
    assert ended.record.best is not None
    assert lines[-3].endswith("--storage s.db")
    assert lines[-2:] == ["Watch in a browser:       mc1opt dashboard --study mlp --storage s.db", ""]
    kept = kept_weights(study_folder(checkpoints_folder("s.db"), "mlp")).keys()
    assert ended.record.best.number in kept
    assert len(kept) <= 2  # one by value, one by expected accuracy


def test_too_little_memory_for_the_workers_is_said_before_they_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command_module, "workers_in_memory", lambda: 1)
    output = io.StringIO()
    run(output, trials=1, workers="2")
    first, second, *_ = without_findings(output.getvalue()).split("\n")
    assert "1 of 2 workers" in first
    assert "--workers 1 " in first
    assert second.startswith("Study mlp")
    run(enough := io.StringIO(), trials=1)
    assert without_findings(enough.getvalue()).startswith("Study mlp")


@pytest.mark.slow
def test_a_trial_that_takes_longer_than_the_limit_has_timed_out(processes: None, switches: Switches) -> None:
    switches.add("hang", seed=derive_seed(0, 1), epoch=1)
    trials = run(trials=2, max_trial_seconds=6.0, pruner="none").record.trials
    assert [trial.outcome for trial in trials] == ["complete", "failed", "complete"]
    assert trials[1].failure is not None
    assert (trials[1].failure["kind"], " 6 " in trials[1].failure["message"]) == ("timed_out", True)


def test_a_terminal_gets_the_live_view_and_is_left_in_order(
    terminal: PseudoTerminal, processes: None
) -> None:
    run(terminal.file, trials=3, workers="2", epochs=None)
    terminal.close()
    view, done, end = terminal.raw.partition("Done, after ")
    assert done
    assert "\x1b" not in end
    assert view.count("\x1b[?25l") == view.count("\x1b[?25h") == 1
    assert re.search(r"#\d +\d+/48 ", plain(view))
    assert "3/3 trials" in plain(view)
    assert max(cell_len(line) for line in without_findings(plain(view)).split("\n")) <= WIDTH


class BrokenFlag(StopFlag):
    """A stop flag that cannot be read once a trial has begun.

    Absolute paths: the search's threads outlive it for a moment, and the test's folder.
    """

    def __init__(self) -> None:
        super().__init__()
        self.path = Path("s.db").absolute()

    def is_set(self) -> bool:
        if self.path.exists():
            trials = stored(str(self.path), "mlp").trials
            if any(trial.outcome != "waiting" for trial in trials):
                raise RuntimeError("broken")
        return super().is_set()


def test_the_terminal_is_as_it_was_when_a_search_raises(terminal: PseudoTerminal) -> None:
    flag = BrokenFlag()
    with pytest.raises(RuntimeError, match="broken"):
        run(terminal.file, flag, storage=str(flag.path))
    terminal.close()
    assert terminal.raw.count("\x1b[?25l") == terminal.raw.count("\x1b[?25h") == 1


def test_a_dumb_terminal_gets_plain_lines(terminal: PseudoTerminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "dumb")
    run(terminal.file, trials=1)
    terminal.close()
    assert "1/1  #0 complete, 0." in terminal.raw
    assert "\x1b" not in terminal.raw
