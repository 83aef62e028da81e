"""Mirrored runs are what the records say, as W&B's own reader finds them, and as its server gets them."""

import json
import resource
import shutil
import subprocess
from pathlib import Path

import pytest

from mc1opt.database.studies import read_study
from mc1opt.mirror.command import MirrorCommand, study_identity, study_runs
from mc1opt.mirror.ledger import Ledger
from mc1opt.mirror.runs import MirroredRun
from mc1opt.mirror.writer import LOG, ROOM_BYTES
from tests.support.wandb_runs import (
    API_KEY,
    FOLDER,
    SMALL,
    ReadRun,
    mirror,
    no_account,
    read_runs,
    small,
    wandb_server,
)

__all__ = ["no_account", "small"]

EVERYTHING = ("--wandb", "offline", "--all", "--artifacts")


@pytest.fixture(scope="module")
def mirrored_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which all of the stored study was mirrored: not to be changed."""
    folder = tmp_path_factory.mktemp("mirrored")
    shutil.copytree(SMALL, folder, dirs_exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        report = mirror(*EVERYTHING)
    assert (report["error"], report["missing"], report["no_login"]) == (None, [], False)
    assert set(report["written"]) == set(report["waiting"])
    return folder


@pytest.fixture
def mirrored(mirrored_folder: Path, tmp_path: Path) -> dict[str, ReadRun]:
    """The test's own copy of that folder, which is its current folder; what W&B's reader finds, by id."""
    shutil.copytree(mirrored_folder, tmp_path, dirs_exist_ok=True)
    return read_runs()


def expected() -> dict[str, MirroredRun]:
    """What the records of the study in the current folder say."""
    command = MirrorCommand("small", "storage/mc1opt.db", "offline", everything=True, artifacts=True)
    identity = study_identity(command.storage, command.study)
    record = read_study(command.storage, command.study)
    ledger = Ledger.read(FOLDER, identity)
    return {run.id: run for run in study_runs(command, record, identity, ledger)}


# ---- What is written -------------------------------------------------------------------------------------


def test_runs_hold_what_the_records_say_and_nothing_of_the_machine(mirrored: dict[str, ReadRun]) -> None:
    runs = expected()
    assert mirrored.keys() == runs.keys()
    for read, run in ((mirrored[run_id], run) for run_id, run in runs.items()):
        named = {key: read.run.get(key) for key in ("display_name", "run_group", "job_type", "project")}
        assert list(named.values()) == [run.name, "small", run.job_type, "mc1opt"]
        assert tuple(read.run.get("tags", ())) == run.tags
        assert read.config == run.config
        rows = [{key: row[key] for key in row if "leaderboard" not in key} for row in read.history]
        assert rows == list(run.history)
        assert run.summary.items() <= read.summary.items()
        assert read.exit_code == int(run.failed)
        metrics = {name for row in run.history for name in row} - {run.axis}
        assert read.axes == dict.fromkeys(metrics, run.axis)
        assert read.run.keys() <= named.keys() | {"run_id", "start_time", "tags"}
        written = {"header", "run", "telemetry", "metric", "history", "summary", "exit", "files", "artifact"}
        assert read.types <= written
    files = {path.name for path in FOLDER.rglob("*") if path.is_file()}
    assert not files & {"requirements.txt", "wandb-metadata.json", "output.log", "diff.patch"}
    beside = {path.name for path in FOLDER.iterdir()} - {read.folder.name for read in mirrored.values()}
    assert {name for name in beside if not name.startswith(".mc1opt-")} == {LOG, ".lock"}


def test_the_leaderboard_is_a_table_that_lies_within_the_study_s_run(mirrored: dict[str, ReadRun]) -> None:
    (run,) = (run for run in expected().values() if run.job_type == "study")
    (table,) = FOLDER.glob("*-study/files/media/table/*.json")
    content = json.loads(table.read_text())
    assert {"columns": content["columns"], "rows": content["data"]} == run.leaderboard
    (artifact,) = mirrored[run.id].artifacts
    for entry in artifact["manifest"]["contents"]:
        assert mirrored[run.id].folder.name in Path(entry["local_path"]).parts


def test_an_artifact_has_curve_config_and_files_which_stay_until_they_are_uploaded(
    mirrored: dict[str, ReadRun],
) -> None:
    run_id = next(run_id for run_id in mirrored if run_id.endswith("trial-7"))
    names = {"config.json", "history.csv", "learning_curve.png", "trial-00007.safetensors"}
    weights = Path("storage/checkpoints/small/trial-00007.safetensors").read_bytes()
    shutil.rmtree("storage/checkpoints")
    for options in ([], ["--project", "a"], ["--project", "b", "--artifacts"]):
        if options:  # another project has it written again
            assert run_id in mirror("--wandb", "offline", "--top", "1", *options)["written"]
        read = read_runs()[run_id]
        (artifact,) = read.artifacts
        assert artifact["type"] == "model"
        assert {entry["path"] for entry in artifact["manifest"]["contents"]} == names
        attached = read.folder / "attached"
        assert {path.name for path in attached.iterdir()} == names
        assert (attached / "trial-00007.safetensors").read_bytes() == weights
        assert (attached / "learning_curve.png").read_bytes().startswith(b"\x89PNG")
        config = json.loads((attached / "config.json").read_text())
        assert config == json.loads(read.config["config_json"])
        header, *lines = (attached / "history.csv").read_text().splitlines()
        assert (header, len(lines)) == ("epoch,validation_accuracy,loss", len(read.history))
        (attached / ".DS_Store").touch()
        (attached / "folder").mkdir()


def test_a_trial_that_leaves_the_best_gets_its_tag_in_place_of_the_older_folder(
    mirrored: dict[str, ReadRun],
) -> None:
    report = mirror("--wandb", "offline", "--top", "1", "--all")
    found = read_runs()
    assert found.keys() == mirrored.keys()
    tags = {run_id: read.run.get("tags", [None])[0] for run_id, read in found.items()}
    left = {run_id for run_id, tag in tags.items() if tag == "left-the-best"}
    assert left == set(report["written"])
    assert {run_id for run_id in mirrored if mirrored[run_id].folder != found[run_id].folder} == left
    complete = [run for run in expected().values() if run.job_type == "trial" and "value" in run.summary]
    assert len(left) == len(complete) - 1


def test_with_a_damaged_ledger_each_run_is_written_anew_in_place_of_the_older_folder(
    mirrored: dict[str, ReadRun],
) -> None:
    (ledger,) = FOLDER.glob(".mc1opt-*.json")
    ledger.write_text("{")
    report = mirror("--wandb", "offline", "--top", "1")
    assert len(report["written"]) == report["runs"]
    assert read_runs().keys() == mirrored.keys()


# ---- What goes wrong -------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("size", [40 << 10, ROOM_BYTES + (100 << 10)])
def test_on_a_disk_that_is_really_full_what_is_not_whole_is_not_called_written(
    small: Path, size: int
) -> None:
    """W&B itself finishes such a run without an error."""
    shutil.rmtree(FOLDER)
    FOLDER.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(FOLDER)]
    if subprocess.run(mount, capture_output=True, check=False).returncode != 0:
        pytest.skip("only root may mount a file system of its own")
    try:
        report = mirror(*EVERYTHING, code=1)
        assert "No space left" in report["error"]
        assert len(report["written"]) < report["runs"]
        runs, found = expected(), read_runs()
        assert found.keys() == set(report["written"])
        for run_id, read in found.items():
            assert (len(read.history), read.exit_code) == (len(runs[run_id].history), 0)
    finally:
        subprocess.run(["umount", str(FOLDER)], check=True)


def test_where_files_can_grow_no_further_it_fails_and_ends(small: Path) -> None:
    """The nearest to a full disk without being root."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES - 1, before[1]))
    try:
        report = mirror("--wandb", "offline", code=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "File too large" in report["error"]
    assert (report["written"], list(FOLDER.glob("offline-run-*"))) == ([], [])


# ---- Uploading -------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_runs_are_uploaded_once_and_again_when_they_change(
    mirrored: dict[str, ReadRun], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_API_KEY", API_KEY)
    runs = expected()
    with wandb_server() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        first = mirror("--all")
        assert (first["written"], sorted(first["uploaded"])) == ([], sorted(runs))
        for run in runs.values():
            sent = server.buckets[run.id]
            config = {key: entry["value"] for key, entry in json.loads(sent["config"]).items()}
            assert {key: value for key, value in config.items() if key != "_wandb"} == run.config
            named = (sent["groupName"], sent["jobType"], tuple(sent["tags"]))
            assert named == ("small", run.job_type, run.tags)
            assert len(server.history.get(run.id, [])) == len(run.history)
        assert [mirror("--all")[key] for key in ("written", "uploaded")] == [[], []]
        server.buckets.clear()
        changed = mirror("--all", "--top", "1")
        assert sorted(changed["uploaded"]) == sorted(changed["written"]) == sorted(server.buckets)
        assert len(changed["written"]) == 3
