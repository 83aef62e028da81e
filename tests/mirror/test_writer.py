"""What the mirroring process writes is what the records say, as W&B's own reader finds it; and it ends."""

import json
import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mc1opt.database.records import StudyRecord
from mc1opt.mirror.ledger import LOG
from mc1opt.mirror.messages import AttachedFile
from mc1opt.mirror.process_tree import descendants
from tests.mirror.test_process_tree import is_alive, wait_until_gone
from tests.support.display import study, trial
from tests.support.wandb_runs import (
    API_KEY,
    FOLDER,
    SECONDS,
    ReadRun,
    mirror,
    no_account,
    read_run,
    read_runs,
    runs_of,
    silent_server,
    wandb_server,
)

__all__ = ["no_account"]

RECORD = study(
    trial(0, value=0.4, losses=[2.0, 1.5, 1.0, 0.5, 0.25], params={"width": 64}, starting_point="narrow"),
    trial(1, "pruned", 0.3),
    trial(2, value=0.7, values_by_epoch=[0.1, 0.3, 0.5, 0.6, 0.7]),
    trial(3, "failed", values_by_epoch=[0.1, 0.1]),
)
EVERYTHING = runs_of(RECORD, everything=True)
THREEFOLD = 3.0


@pytest.fixture(scope="module")
def mirrored_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all runs of the study: not to be changed."""
    folder = tmp_path_factory.mktemp("mirrored") / FOLDER
    outcome = mirror(EVERYTHING, folder=folder)
    assert outcome.error is None, outcome.error
    assert outcome.written == [run.id for run in EVERYTHING]
    return folder


@pytest.fixture(scope="module")
def found(mirrored_folder: Path) -> dict[str, ReadRun]:
    """What W&B's reader finds there, by id."""
    return read_runs(mirrored_folder)


@pytest.fixture
def mirrored(mirrored_folder: Path, tmp_path: Path) -> Path:
    """The test's own copy of that folder."""
    return Path(shutil.copytree(mirrored_folder, tmp_path / FOLDER))


def with_a_better_trial() -> StudyRecord:
    return study(*RECORD.trials, trial(4, value=0.8))


def folder_names(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("offline-run-*")}


# ---- What is written -------------------------------------------------------------------------------------


def test_runs_hold_what_the_records_say(found: dict[str, ReadRun]) -> None:
    assert found.keys() == {run.id for run in EVERYTHING}
    for run in EVERYTHING:
        read = found[run.id]
        assert read.run["display_name"] == run.name
        assert read.run["run_group"] == RECORD.study
        assert read.run["job_type"] == run.job_type
        assert read.run["project"] == "mc1opt"
        assert tuple(read.run.get("tags", ())) == run.tags
        assert read.config == run.config
        assert len(read.history) == len(run.history)
        for row, expected in zip(read.history, run.history, strict=True):
            assert {key: value for key, value in row.items() if key in expected} == expected
        assert run.summary.items() <= read.summary.items()
        assert read.exit_code == (1 if run.failed else 0)


def test_curves_are_drawn_against_epochs_and_the_study_against_trials(found: dict[str, ReadRun]) -> None:
    for run in EVERYTHING:
        metrics = {name for row in run.history for name in row} - {run.axis}
        assert found[run.id].axes == dict.fromkeys(metrics, run.axis)


def test_the_leaderboard_is_a_table_in_the_study_s_run(
    mirrored_folder: Path, found: dict[str, ReadRun]
) -> None:
    (table,) = mirrored_folder.glob("*-study/files/media/table/*.json")
    leaderboard = EVERYTHING[0].leaderboard
    assert leaderboard is not None
    stored = json.loads(table.read_text())
    assert stored["columns"] == list(leaderboard.columns)
    assert stored["data"] == [list(row) for row in leaderboard.rows]
    (artifact,) = found[EVERYTHING[0].id].artifacts
    for entry in artifact["manifest"]["contents"]:
        assert Path(entry["local_path"]).is_relative_to(table.parents[3])


def test_nothing_is_collected_from_the_machine(mirrored_folder: Path, found: dict[str, ReadRun]) -> None:
    files = {path.name for path in mirrored_folder.rglob("*") if path.is_file()}
    assert not files & {"requirements.txt", "wandb-metadata.json", "output.log", "diff.patch"}
    for read in found.values():
        named = {"display_name", "job_type", "project", "run_group", "run_id", "start_time", "tags"}
        assert read.run.keys() <= named
        assert read.types <= {
            *("header", "run", "telemetry", "metric", "history", "summary", "exit"),
            *("files", "artifact"),  # the leaderboard
        }


def test_nothing_is_left_beside_the_runs(mirrored_folder: Path) -> None:
    beside = {path.name for path in mirrored_folder.iterdir()} - folder_names(mirrored_folder)
    assert {name for name in beside if not name.startswith(".mc1opt")} == {LOG}


def test_mirroring_again_adds_nothing_and_changes_nothing(mirrored: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in mirrored.rglob("*.wandb")}
    assert mirror(EVERYTHING).written == []
    assert {path: path.stat().st_mtime_ns for path in mirrored.rglob("*.wandb")} == before


def test_a_trial_that_leaves_the_best_gets_its_tag_in_place_of_the_older_folder(mirrored: Path) -> None:
    before = folder_names(mirrored)
    runs = runs_of(with_a_better_trial(), top=2, best_before=frozenset({0, 2}))
    written = mirror(runs).written
    kept = next(run.id for run in runs if run.trial == 2)
    assert set(written) == {run.id for run in runs} - {kept}
    found = read_runs()
    assert {found[run.id].run["tags"][0] for run in runs if run.trial == 0} == {"left-the-best"}
    assert found.keys() == {run.id for run in (*EVERYTHING, *runs)}
    assert len(folder_names(mirrored) - before) == len(written)


@pytest.mark.slow
def test_a_run_without_any_row_is_written_all_the_same() -> None:
    runs = runs_of(study(trial(0, "failed", values_by_epoch=[])), everything=True)
    assert [run.history for run in runs] == [(), ()]
    assert mirror(runs).error is None
    assert [read.history for read in read_runs().values()] == [[], []]


# ---- What goes wrong -------------------------------------------------------------------------------------


@pytest.mark.slow
def test_without_a_login_runs_are_written_and_it_says_so() -> None:
    outcome = mirror(runs_of(RECORD, top=1), "online")
    assert outcome.no_login
    assert outcome.error is None
    assert len(read_runs()) == len(outcome.written) == 2


def test_without_wandb_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "broken/wandb").mkdir(parents=True)
    (tmp_path / "broken/wandb/__init__.py").write_text("raise ImportError('no such library')")
    monkeypatch.syspath_prepend(tmp_path / "broken")
    outcome = mirror(EVERYTHING)
    assert outcome.written == []
    assert outcome.error == "wandb cannot be used: ImportError: no such library"


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    outcome = mirror(EVERYTHING, folder=tmp_path / "file/wandb")
    assert outcome.written == []
    assert outcome.error is not None
    assert "cannot be written: Not a directory" in outcome.error


@pytest.mark.slow
@pytest.mark.parametrize("kilobytes", range(24, 49, 8))
def test_on_a_disk_that_is_really_full_what_is_not_whole_is_not_called_written(
    tmp_path: Path, kilobytes: int
) -> None:
    """W&B itself finishes such a run without an error. The sizes are enough for none, some, most of it."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", str(disk)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a file system of its own")
    try:
        outcome = mirror(EVERYTHING, folder=disk / "wandb")
        assert outcome.error is not None
        assert len(outcome.written) < len(EVERYTHING)
        found = [read_run(path) for path in (disk / "wandb").glob("offline-run-*")]
        whole = {read.run["run_id"]: len(read.history) for read in found if read.exit_code is not None}
        for run in EVERYTHING[: len(outcome.written)]:
            assert whole[run.id] == len(run.history)
    finally:
        subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.slow
def test_where_files_can_grow_no_further_it_fails_and_ends() -> None:
    """The nearest to a full disk without being root: enough for what it is told, too little for its run."""
    rows = tuple({"epoch": index + 1, "loss": 1.0 / (index + 1)} for index in range(2000))
    run = EVERYTHING[1].model_copy(update={"history": rows})
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))
    try:
        outcome = mirror([run])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert outcome.error is not None
    assert outcome.written == []


@pytest.mark.slow
def test_a_server_that_never_answers_costs_its_limit_and_no_run(
    mirrored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    with silent_server() as url:
        monkeypatch.setenv("WANDB_BASE_URL", url)
        begun = time.monotonic()
        outcome = mirror(EVERYTHING, "online", total=4.0)
        assert time.monotonic() - begun < THREEFOLD * 4.0
    assert outcome.error == "it took longer than 4 s"
    assert outcome.uploaded == []
    assert len(read_runs(mirrored)) == len(EVERYTHING)


@pytest.mark.slow
def test_without_a_network_it_ends_and_nothing_is_lost(
    mirrored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    monkeypatch.setenv("WANDB_BASE_URL", url)  # nobody listens there any more
    outcome = mirror(EVERYTHING, "online", total=4.0)
    assert outcome.error is not None
    assert len(read_runs(mirrored)) == len(EVERYTHING)


# ---- Uploading -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_are_uploaded_once_and_again_when_they_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        ids = [run.id for run in EVERYTHING]
        first = mirror(EVERYTHING, "online")
        assert (first.error, first.written, sorted(first.uploaded)) == (None, ids, sorted(ids))
        assert server.buckets.keys() == set(ids)
        for run in EVERYTHING:
            sent = server.buckets[run.id]
            config = {key: entry["value"] for key, entry in json.loads(sent["config"]).items()}
            assert {key: value for key, value in config.items() if key != "_wandb"} == run.config
            assert (sent["groupName"], sent["jobType"], tuple(sent["tags"])) == (
                "cnn",
                run.job_type,
                run.tags,
            )
            assert len(server.history.get(run.id, [])) == len(run.history)
        again = mirror(EVERYTHING, "online")
        assert (again.error, again.written, again.uploaded) == (None, [], [])

        server.buckets.clear()
        runs = runs_of(with_a_better_trial(), everything=True)
        changed = mirror(runs, "online")
        assert changed.error is None
        assert sorted(changed.uploaded) == sorted(changed.written) == sorted(server.buckets)
        assert set(changed.written) == {runs[0].id, runs[-1].id}
        assert len(server.history[runs[0].id]) == len(runs[0].history)


@pytest.mark.slow
def test_an_artifact_has_curve_config_and_files_and_lies_within_the_run(tmp_path: Path) -> None:
    weights = tmp_path / "trial-00000.safetensors"
    weights.write_bytes(b"weights")
    run = EVERYTHING[1].model_copy(update={"files": (AttachedFile(path=str(weights), sha256="a"),)})
    assert mirror([run]).error is None
    weights.unlink()
    (read,) = read_runs().values()
    (artifact,) = read.artifacts
    assert artifact["type"] == "model"
    places = {entry["path"]: Path(entry["local_path"]) for entry in artifact["manifest"]["contents"]}
    assert places.keys() == {"config.json", "history.csv", "learning_curve.png", weights.name}
    assert all(place.is_relative_to(read.folder.absolute()) for place in places.values())
    assert places[weights.name].read_bytes() == b"weights"
    assert places["learning_curve.png"].read_bytes().startswith(b"\x89PNG")
    assert json.loads(places["config.json"].read_text()) == json.loads(str(run.config["config_json"]))
    lines = places["history.csv"].read_text().splitlines()
    assert lines[0] == "epoch,validation_accuracy,loss"
    assert len(lines) == 1 + len(run.history)
    # A mirroring without artifacts leaves it as it is, also where the run itself changes.
    assert mirror([EVERYTHING[1]]).written == []
    for files in (None, ()):
        attached = places[weights.name].parent
        (attached / ".DS_Store").touch()
        (attached / "folder").mkdir()
        retagged = EVERYTHING[1].model_copy(update={"tags": (f"left-{files}",), "files": files})
        assert mirror([retagged]).written == [run.id]
        (again,) = read_runs().values()
        (artifact,) = again.artifacts
        assert again.run["tags"] == list(retagged.tags)
        places = {entry["path"]: Path(entry["local_path"]) for entry in artifact["manifest"]["contents"]}
        assert places.keys() == {"config.json", "history.csv", "learning_curve.png", weights.name}
        assert places[weights.name].read_bytes() == b"weights"


# ---- Its end ---------------------------------------------------------------------------------------------

PARENT = """
import sys, time
from tests.support.wandb_runs import start_mirroring
from tests.mirror.test_writer import EVERYTHING
process = start_mirroring(EVERYTHING, "online", total=600.0)
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.fixture
def parent(mirrored: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator["subprocess.Popen[str]"]:
    """A process that mirrors to a server that never answers."""
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
    with silent_server() as url, tempfile.TemporaryDirectory() as scratch:  # a short path, for sockets
        monkeypatch.setenv("TMPDIR", scratch)
        monkeypatch.setenv("WANDB_BASE_URL", url)
        started = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
        yield started
        started.kill()
        started.wait()
        assert started.stdout is not None
        started.stdout.close()


@pytest.mark.slow
def test_it_ends_with_its_parent_and_so_does_wandb_s_service(parent: "subprocess.Popen[str]") -> None:
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    deadline = time.monotonic() + SECONDS
    while len(below := descendants(pid)) < 2:  # `wandb sync`, and W&B's service
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert {os.getpgid(process) for process in below} - {os.getpgid(pid)}  # which is in a group of its own
    assert all(map(is_alive, below))
    parent.send_signal(signal.SIGKILL)
    wait_until_gone([pid, *below])
    assert list(Path(os.environ["TMPDIR"]).iterdir()) == []
