"""The driver of what wants a GPU, on the CPU in small: what is missing, what fits, a run in two halves."""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from benchmarks import on_gpu
from benchmarks.on_gpu import Piece, command, parse_options, pieces, run_missing, run_piece
from benchmarks.published_arms import Arm, arms
from mc1opt.config import config_id
from mc1opt.data.named import CIFAR10
from mc1opt.errors import UsageError
from mc1opt.files import append_line, read_lines
from mc1opt.workers.stop import StopFlag
from tests.support.command import SECONDS
from tests.support.image_sets import write_binary_folder

ROOT = Path(__file__).parents[2]
QUICK = ["tests", "throughput", "workers", "precision", "seconds"]
NOT_NEEDED = ["typer", "rich", "wandb", "optuna_dashboard", "plotly", "matplotlib", "onnx", "onnxruntime"]


def options(*arguments: str) -> argparse.Namespace:
    return parse_options(["--results", "results", *arguments])


def named(name: str, *arguments: str, data: str = CIFAR10) -> Piece:
    (found,) = [piece for piece in pieces(options(*arguments), data) if piece.name == name]
    return found


def published_line(arm: Arm, seed: int, **changes: Any) -> dict[str, Any]:
    line = {"arm": arm.name, "recipe": arm.recipe, "config_id": config_id(arm.config), "epochs": arm.epochs}
    line |= {"seed": seed, "data": CIFAR10, "device": "cuda", "precision": "bfloat16"}
    return line | {"train_images": 50_000, "epoch_seconds": [2.0] * arm.epochs} | changes


# ---- What is missing -------------------------------------------------------------------------------------


def test_all_is_missing_at_first_and_the_deep_rows_and_their_arms_are_measured_with_their_recipes() -> None:
    found = pieces(options(), CIFAR10)
    deep = {f"{arm.name} ({arm.recipe})" for arm in arms() if arm.deep}
    assert [piece.name for piece in found[:5]] == QUICK
    assert {piece.name for piece in found[5:]} == deep
    assert len(found) == 5 + len(deep) == 15
    assert not any(piece.done for piece in found)


def test_only_what_is_named_is_measured_other_rows_too() -> None:
    found = pieces(options("--only", "workers", "mlp-128-64"), CIFAR10)
    assert [piece.name for piece in found] == ["workers", "mlp-128-64 (published)", "mlp-128-64 (mc1opt)"]


@pytest.mark.parametrize("name", ["nope", "cnn-deep (mc1opt)", "on_gpu"])
def test_an_unknown_piece_is_refused_with_all_of_them(name: str) -> None:
    with pytest.raises(UsageError, match=r"unknown piece .*There are: tests, throughput, .*, mlp-128-64, "):
        pieces(options("--only", "workers", name), CIFAR10)


@pytest.mark.parametrize(
    ("changes", "done"),
    [
        ({}, True),
        ({"exit_code": 1}, False),
        ({"data": "own-123"}, False),
        ({"device": "cpu"}, False),
        ({"arguments": ["benchmarks.workers", "--workers", "1"]}, False),
    ],
)
def test_a_quick_piece_is_done_where_the_same_one_ended_well(changes: dict[str, Any], done: bool) -> None:
    line = {"piece": "workers", "arguments": ["benchmarks.workers"], "exit_code": 0, "seconds": 100.0}
    append_line(Path("results/on_gpu.jsonl"), line | {"data": CIFAR10, "device": "cuda"} | changes)
    assert named("workers").done == done
    assert not named("precision").done


def test_trainings_are_done_where_all_their_seeds_are_in_the_results() -> None:
    (arm,) = [each for each in arms() if (each.name, each.recipe) == ("cnn-deep", "mc1opt")]
    name, path = "cnn-deep (mc1opt)", Path("results/published.jsonl")
    append_line(path, published_line(arm, 0))
    for changes in ({"device": "cpu"}, {"precision": "float32"}, {"data": "own-123"}, {"epochs": 1}):
        append_line(path, published_line(arm, 1, **changes))
    assert named(name).state == "1 of 3 seeds"
    assert named(name, "--small").done
    append_line(path, published_line(arm, 1))
    append_line(path, published_line(arm, 2))
    assert named(name).done


def test_the_pace_of_what_is_measured_on_the_device_tells_how_long_the_rest_takes() -> None:
    (arm,) = [each for each in arms() if (each.name, each.recipe) == ("cnn-deep", "published")]
    for changes in ({}, {"device": "cpu", "epoch_seconds": [900.0] * 20}):
        append_line(Path("results/published.jsonl"), published_line(arm, 0, **changes))
    assert named("cnn-deep (published)").seconds == pytest.approx(on_gpu.START_SECONDS + 2 * 20 * 2.0)
    assert named("cnn-deep-adam (mc1opt)").seconds == pytest.approx(on_gpu.START_SECONDS + 3 * 8 * 2.0)


def test_a_piece_is_told_of_device_images_and_folders_and_the_tests_of_the_switch() -> None:
    chosen = options("--device", "cpu", "--data", "images", "--storage", "~/kept")
    made = command(named("cnn-deep (mc1opt)"), chosen)
    for option, value in {
        "--device": "cpu",
        "--data": str(Path("images").absolute()),
        "--storage": str(Path.home() / "kept" / "mc1opt.db"),
        "--results": str(Path("results/published.jsonl").absolute()),
        "--seeds": "3",
    }.items():
        assert made[made.index(option) + 1] == value
    assert str(Path("results/published_seconds.jsonl").absolute()) in command(named("seconds"), chosen)
    assert "--cuda" not in command(named("tests"), chosen)
    assert command(named("tests"), options())[-1] == "--cuda"


# ---- Running ---------------------------------------------------------------------------------------------


def test_what_does_not_fit_into_the_time_is_not_begun(capsys: pytest.CaptureFixture[str]) -> None:
    chosen = options("--timeout", "20s", "--device", "cpu", "--only", "workers", "cnn-deep")
    assert list(run_missing(chosen, CIFAR10, StopFlag())) == []
    said = capsys.readouterr().out
    assert "workers: not begun, takes about 4 min." in said
    assert "cnn-deep (published): not begun" in said
    assert not Path("results").exists()


@pytest.mark.parametrize(
    ("code", "exit_code"),
    [
        ("pass", 0),
        ("raise SystemExit(3)", 3),
        ("import mc1opt", 0),
        ("import time; print('on', flush=True); time.sleep(60)", -15),
        (
            "import signal, time; signal.signal(signal.SIGTERM, lambda *_: exit(143))\n"
            "print('on', flush=True); time.sleep(60)",
            143,
        ),
        (
            "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
            "print('on', flush=True); time.sleep(60)",
            -9,
        ),
    ],
    ids=["well", "badly", "finds mc1opt", "ended", "ends itself", "killed"],
)
def test_a_piece_ends_by_itself_or_is_ended(
    code: str, exit_code: int, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(on_gpu, "END_SECONDS", 1.0)
    said: list[str] = []

    def is_on() -> bool:
        said.append(capfd.readouterr().out)
        return "on\n" in "".join(said)

    assert run_piece([sys.executable, "-c", code], is_on) == exit_code


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    made = [sys.executable, "-m", "benchmarks.on_gpu", *arguments]
    return subprocess.run(made, cwd=ROOT, capture_output=True, text=True, timeout=6 * SECONDS, check=False)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_run_that_its_timeout_stopped_is_gone_on_with(tmp_path: Path) -> None:
    write_binary_folder(tmp_path / "images", train_images=400)
    results = tmp_path / "results"
    chosen = ["--small", "--device", "cpu", "--data", str(tmp_path / "images"), "--results", str(results)]
    chosen += ["--storage", str(tmp_path / "storage")]
    chosen += ["--only", *QUICK, "mlp-128-64"]

    stopped = run(*chosen, "--timeout", "6s")  # all imports of torch alone take longer
    assert (stopped.returncode, stopped.stderr) == (0, "")
    assert stopped.stdout.endswith("Stopped; the same command goes on.\n")
    assert "7 of 7 pieces" not in stopped.stdout

    ended = run(*chosen)
    assert ended.returncode == 0, ended.stderr
    assert "7 of 7 pieces are done" in ended.stdout
    files = {path.stem: read_lines(path) for path in results.iterdir()}
    counts = {name: len(lines) for name, lines in files.items()}
    quick = {"throughput": 1, "workers": 1, "precision": 1, "published_seconds": 1}
    assert counts == quick | {"on_gpu": 5, "published": 2}
    assert [line["piece"] for line in files["on_gpu"]] == QUICK
    assert {line["device"] for lines in files.values() for line in lines} == {"cpu"}
    assert str(tmp_path) not in json.dumps(files)
    assert {int(count) for count in files["workers"][0]["images_per_second"]} == {1, 2}
    for figures in files["precision"][0]["precisions"].values():
        assert 0.0 <= figures["accuracies"][0] <= 1.0
        assert all(seconds > 0.0 for seconds in figures["seconds"][0])

    started = time.monotonic()
    again, listed = run(*chosen), run(*chosen, "--list")
    assert again.stdout.strip() == listed.stdout.strip()
    assert "7 of 7 pieces are done; the others take about 0 s." in again.stdout
    assert time.monotonic() - started < SECONDS
    assert {path.stem: len(read_lines(path)) for path in results.iterdir()} == counts


def test_without_the_images_nothing_is_fetched(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--device", "cpu", "--only", "workers", "--results", "results"]
    monkeypatch.setattr(sys, "argv", ["on_gpu", *options])
    with pytest.raises(SystemExit, match="1"):
        on_gpu.main()
    stdout, stderr = capsys.readouterr()
    assert stdout == ""
    assert "CIFAR-10 is not in the cache; nothing is fetched here" in stderr


@pytest.mark.slow
def test_no_piece_needs_a_package_that_a_gpu_machine_may_lack() -> None:
    modules = ["on_gpu", "published", "published_seconds", "throughput", "workers", "precision"]
    imported = ", ".join(f"benchmarks.{name}" for name in modules)
    code = (
        f"import sys; sys.modules.update(dict.fromkeys({NOT_NEEDED}))\n"
        f"import {imported}, mc1opt.workers.process, mc1opt.training.loop, tests.test_cuda"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
