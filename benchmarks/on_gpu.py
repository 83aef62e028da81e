"""Every figure of this project that wants a GPU, piece by piece; the same command goes on where it stopped.

At the top of the repository:

    python -m benchmarks.on_gpu                  all that is missing
    python -m benchmarks.on_gpu --timeout 9m     begins to stop after that time; half a minute more at most
    python -m benchmarks.on_gpu --list           what is done and what is missing, with an estimate of each
    python -m benchmarks.on_gpu --only workers cnn-deep
    python -m benchmarks.on_gpu --only workers mlp-128-64 --small --device cpu --data FOLDER     a trial run

The pieces, and where in `benchmarks/results/` their figures go:

    tests        the tests marked `cuda`                            on_gpu.jsonl, as each piece that has ended
    throughput   `throughput.py`: against the tutorial loop         throughput.jsonl
    workers      `workers.py`: 1, 2, 4, 8 workers on one GPU        workers.jsonl
    precision    `precision.py`: float32 against bfloat16           precision.jsonl
    seconds      `published_seconds.py`: the deep batch norm arms   published_seconds.jsonl
    cnn-deep...  `published.py`: rows 8 to 11 and their arms, three published.jsonl
                 seeds each; other rows and arms only by name

Each piece is a process of its own, and takes less than ten minutes on a large GPU. One that does not fit into
what `--timeout` leaves is not begun. One that it stops begins anew, but for trainings of `published.py`:
they resume from their checkpoints in `--storage`. Where the checkout is replaced between calls, `--results`
names a folder that stays. At the end, `python -m benchmarks.published --report` writes `PUBLISHED.md`.

Nothing is fetched: images come from the cache, `MC1OPT_DATA`, or `--data`. Of mc1opt's packages, needed are
torch, torchvision (with numpy and pillow), optuna (with sqlalchemy, alembic, Mako, colorlog, packaging),
pydantic, safetensors and platformdirs; for `tests` also pytest. mc1opt itself need not be installed. What a
machine without a network lacks can come as a folder, named in PYTHONPATH:

    pip install --target FOLDER --python-version 3.12 --only-binary=:all: pydantic safetensors platformdirs
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.common import RESULTS, append_result, machine_facts, markdown_table
from benchmarks.published import missing_entries
from benchmarks.published_arms import DEEP, Arm, arms
from benchmarks.published_lines import TRAIN_IMAGES
from mc1opt.cli.signals import Signals
from mc1opt.cli.values import parse_duration
from mc1opt.data.cache import open_entry
from mc1opt.data.named import CIFAR10
from mc1opt.data.sources import find_data
from mc1opt.errors import DataError, Mc1optError, UsageError
from mc1opt.files import read_lines
from mc1opt.machine.devices import resolve_device, resolve_precision
from mc1opt.measurement.trainings import OVERHEAD_MACS
from mc1opt.paths import user_path
from mc1opt.spec import DEVICES
from mc1opt.text import duration
from mc1opt.workers.stop import TICK_SECONDS, StopFlag

ROOT = Path(__file__).parents[1]
START_SECONDS = 30.0
"""What a piece needs before its first step: torch, CUDA's context, images."""
END_SECONDS = 30.0
"""After which a piece that was told to end is killed; trainings write their checkpoints meanwhile."""
SMALL_SECONDS = 1.0
"""With `--small`, what is only tried out is begun if so much is left."""
SPEED = {"cuda": 1e13, "cpu": 1e10, "mps": 1e11}
"""Multiply-accumulates of networks that are trained a second: for estimates, until something is measured."""
TESTS = "-o addopts= -W ignore::pytest.PytestConfigWarning -m cuda tests/test_cuda.py"
"""Also where pytest has none of the plugins that the project's settings are for."""
FEW = "--rounds 1 --images 128"
QUICK = (
    ("tests", "pytest", TESTS, TESTS, 240.0),
    ("throughput", "benchmarks.throughput", "--rounds 3 --images 24960", f"{FEW} --network 16-32-64", 420.0),
    ("workers", "benchmarks.workers", "", f"{FEW} --workers 1 2", 240.0),
    ("precision", "benchmarks.precision", "", f"{FEW} --network mlp-128-64", 300.0),
    ("seconds", "benchmarks.published_seconds", f"--base {DEEP} --images 20000", FEW, 180.0),
)
"""What is measured in one go: name, module, its options, those with `--small`, and a guess of the seconds."""


@dataclass(frozen=True)
class Piece:
    """Something that is measured by a process of its own."""

    name: str
    arguments: tuple[str, ...]
    """Of `python -m`, without device and paths."""
    state: str
    """What is there of it, in words."""
    seconds: float
    """What is left takes about so long; 0 if it is done."""
    resumable: bool = False

    @property
    def done(self) -> bool:
        """Whether nothing is left."""
        return self.seconds == 0.0

    @property
    def least(self) -> float:
        """Seconds that must be left for it to begin."""
        return min(self.seconds, 2 * START_SECONDS) if self.resumable else self.seconds


# ---- What there is to do ---------------------------------------------------------------------------------


def pieces(options: argparse.Namespace, data: str) -> list[Piece]:
    """All pieces that the options name, the quick ones first.

    Raises:
        UsageError: `--only` has a name that there is not.
    """
    every = arms()
    quick = quick_pieces(options, data)
    known = [piece.name for piece in quick] + list(dict.fromkeys(arm.name for arm in every))
    if unknown := set(options.only or ()) - set(known):
        raise UsageError(f"unknown piece {', '.join(sorted(unknown))}. There are: {', '.join(known)}.")
    chosen = [arm for arm in every if (arm.name in options.only if options.only else arm.deep)]
    speed = measured_speed(options)
    return [
        *(piece for piece in quick if not options.only or piece.name in options.only),
        *(published_piece(arm, options, data, speed) for arm in sorted(chosen, key=lambda arm: arm.price)),
    ]


def quick_pieces(options: argparse.Namespace, data: str) -> list[Piece]:
    """Those that are measured in one go: done where a line says that the same one has ended well."""
    ended = {
        tuple(line["arguments"]): line["seconds"]
        for line in read_lines(options.results / "on_gpu.jsonl")
        if (line["data"], line["device"], line["exit_code"]) == (data, options.device, 0)
    }
    found = []
    for name, module, full, small, guess in QUICK:
        arguments = (module, *(small if options.small else full).split())
        took = ended.get(arguments)
        state = "missing" if took is None else f"done, took {duration(took)}"
        left = 0.0 if took is not None else SMALL_SECONDS if options.small else guess
        found.append(Piece(name, arguments, state, left))
    return found


def published_piece(arm: Arm, options: argparse.Namespace, data: str, speed: float) -> Piece:
    """A row or an arm with one recipe: done where the results of `published.py` have all of its seeds."""
    wanted = 1 if options.small else arm.seeds
    arithmetic = options.device, resolve_precision(options.device)
    path = options.results / "published.jsonl"
    left = sum(len(entry.seeds) for entry in missing_entries([arm], wanted, path, data, *arithmetic))
    arguments = ["benchmarks.published", "--only", arm.name, "--recipe", arm.recipe, "--seeds", str(wanted)]
    # The deep ones fill a GPU; one after the other, each is a line as soon as it can be.
    arguments += ["--workers", "1", "--no-report"]
    seconds = SMALL_SECONDS if options.small else START_SECONDS + left * training_macs(arm) / speed
    state = f"{wanted - left} of {wanted} seeds"
    name = f"{arm.name} ({arm.recipe})"
    return Piece(name, tuple(arguments), state, seconds if left else 0.0, resumable=True)


def training_macs(arm: Arm) -> float:
    """Multiply-accumulates of a training on all of CIFAR-10; those of its backward steps are not counted."""
    return float((arm.price + OVERHEAD_MACS * arm.epochs) * TRAIN_IMAGES)


def measured_speed(options: argparse.Namespace) -> float:
    """Multiply-accumulates a second, by the results of `published.py` on this device; `SPEED` without any."""
    by_key = {(arm.name, arm.recipe): arm for arm in arms()}
    macs = seconds = 0.0
    for line in read_lines(options.results / "published.jsonl"):
        arm = by_key.get((line["arm"], line["recipe"]))
        if arm is not None and line["device"] == options.device and line["epoch_seconds"]:
            share = len(line["epoch_seconds"]) / arm.epochs * line["train_images"] / TRAIN_IMAGES
            macs += training_macs(arm) * share
            seconds += sum(line["epoch_seconds"])
    return macs / seconds if seconds else SPEED[options.device]


def overview(found: Sequence[Piece]) -> str:
    """What is done and what is missing, as a table."""
    rows = [[piece.name, piece.state, "" if piece.done else duration(piece.seconds)] for piece in found]
    left = sum(piece.seconds for piece in found)
    done = sum(piece.done for piece in found)
    return (
        f"{markdown_table(['piece', 'state', 'about'], rows)}\n\n"
        f"{done} of {len(found)} pieces are done; the others take about {duration(left)}."
    )


# ---- Doing it --------------------------------------------------------------------------------------------


def command(piece: Piece, options: argparse.Namespace) -> list[str]:
    """The process that measures a piece."""
    module, *arguments = piece.arguments
    if module == "pytest":
        arguments += ["--cuda"] if options.device == "cuda" else []
    else:
        results = options.results / f"{module.removeprefix('benchmarks.')}.jsonl"
        arguments += ["--device", options.device, "--results", str(results)]
        arguments += ["--data", str(options.data)] if options.data else []
    if piece.resumable:
        arguments += ["--storage", str(options.storage / "mc1opt.db")]
    return [sys.executable, "-m", module, *arguments]


def run_piece(made: list[str], until: Callable[[], bool]) -> int:
    """Runs a command to its end, or tells it to end; its exit code, negative for a signal that ended it."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    # Its own session: a terminal's Ctrl-C does not reach it twice.
    process = subprocess.Popen(made, cwd=ROOT, env=os.environ | {"PYTHONPATH": path}, start_new_session=True)
    while not until():
        with contextlib.suppress(subprocess.TimeoutExpired):
            return process.wait(TICK_SECONDS)
    process.terminate()
    try:
        return process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        return process.wait()


def run_missing(options: argparse.Namespace, data: str, stop: StopFlag) -> Iterator[tuple[Piece, int]]:
    """Runs what is missing and fits into the time; gives each piece that was begun, with its exit code."""
    timeout = parse_duration(options.timeout, "--timeout")
    deadline = None if timeout is None else time.monotonic() + timeout

    def time_is_up() -> bool:
        if deadline is not None and time.monotonic() >= deadline:
            stop.set("timeout", "the time is up")
        return stop.is_set()

    for piece in pieces(options, data):
        if piece.done or time_is_up():
            continue
        if deadline is not None and piece.least > deadline - time.monotonic():
            print(f"{piece.name}: not begun, takes about {duration(piece.seconds)}.", flush=True)
            continue
        print(f"\n---- {piece.name}, about {duration(piece.seconds)}", flush=True)
        started = time.monotonic()
        code = run_piece(command(piece, options), time_is_up)
        if not piece.resumable and not stop.is_set():
            figures = {"piece": piece.name, "arguments": piece.arguments, "exit_code": code}
            figures |= {"data": data, "device": options.device, "seconds": time.monotonic() - started}
            append_result(options.results / "on_gpu.jsonl", machine_facts(options.device), figures)
        yield piece, code


def measure(options: argparse.Namespace, data: str) -> int:
    """Runs what is missing, and says how far it is; the exit code."""
    stop = StopFlag()
    signals = Signals(stop)
    signals.leave_to_the_work()
    failed = [piece.name for piece, code in run_missing(options, data, stop) if code and not stop.is_set()]
    found = pieces(options, data)
    print(f"\n{overview(found)}")
    # Also where the time was too short for what was left to begin.
    if stop.is_set() or not (failed or all(piece.done for piece in found)):
        print("Stopped; the same command goes on.")
    if failed:
        print(f"Error: failed, see above: {', '.join(failed)}.", file=sys.stderr)
    return signals.exit_code or int(bool(failed))


def parse_options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options; see the top of this file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--list", action="store_true", help="run nothing; say how far it is")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these pieces: any row or arm, too")
    parser.add_argument("--timeout", help="begin to stop after this time: 90s, 9m, 1h30m")
    parser.add_argument("--device", choices=DEVICES, default="cuda")
    parser.add_argument("--small", action="store_true", help="few images, one seed, to try this out")
    parser.add_argument("--data", type=user_path, help="CIFAR-10's files, or other images")
    parser.add_argument(
        "--storage", type=user_path, default=Path("storage"), help="a folder for unfinished work"
    )
    parser.add_argument(
        "--results", type=user_path, default=RESULTS, help="the folder of all files of results"
    )
    options = parser.parse_args(arguments)
    for name in ("data", "storage", "results"):  # the pieces run at the top of the repository
        path = getattr(options, name)
        setattr(options, name, None if path is None else path.expanduser().absolute())
    return options


def main() -> None:
    """Lists the pieces, or runs what is missing."""
    options = parse_options()
    try:
        data = find_data(options.data).name if options.data else CIFAR10
        if options.list:
            print(overview(pieces(options, data)))
            return
        resolve_device(options.device)
        if open_entry(data) is None:
            raise DataError(
                "CIFAR-10 is not in the cache; nothing is fetched here: name its files by --data."
            )
        code = measure(options, data)
    except Mc1optError as error:
        print(f"Error: {error}", file=sys.stderr)
        code = error.exit_code
    sys.exit(code)


if __name__ == "__main__":
    main()
