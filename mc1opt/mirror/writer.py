"""The process that mirrors: writes runs in W&B's offline format, and uploads them with `wandb sync`.

Started by `mirror_process.py` as `python -m mc1opt.mirror.writer`. Runs are always written offline
first, which needs neither login nor network, so that nothing that happens to an upload loses any. It says
what it did on its standard output; what W&B itself prints goes to a log beside the runs. It ends with its
parent. The only file that imports wandb.
"""

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mc1opt.errors import Mc1optError
from mc1opt.mirror.ledger import (
    LOG,
    Ledger,
    Written,
    is_uploaded,
    locked,
    note_uploads,
    read_ledger,
    remove_unfinished,
    run_folders,
    write_ledger,
)
from mc1opt.mirror.messages import (
    SCRATCH,
    AttachedFile,
    Leaderboard,
    MirroredRun,
    MirrorEvent,
    MirrorTask,
)
from mc1opt.mirror.process_tree import kill_descendants
from mc1opt.training.model_folder import file_sha256
from mc1opt.workers.protocol import write_all

if TYPE_CHECKING:
    from wandb import Run, Settings

LOCK_SECONDS = 30.0
"""How long another mirroring is waited for."""
POLL_SECONDS = 0.1
ATTACHED = "attached"
"""The folder, within a run's, with copies of what is uploaded with it: the originals may go before that."""

MADE_HERE = ("config.json", "history.csv", "learning_curve.png")
"""Files of an artifact that are made of the run itself."""

Tell = Callable[[MirrorEvent], None]


def mirror(task: MirrorTask, tell: Tell) -> None:
    """Writes the runs that are not there as they shall be; uploads what is not uploaded, if it is to.

    Raises:
        Mc1optError: W&B cannot be used, or something was not written or uploaded; what was done before is
            kept, and told.
        OSError: the folder cannot be written.
    """
    folder = Path(task.folder)
    with locked(folder, LOCK_SECONDS):
        tell(MirrorEvent(what="begun"))
        ledger = read_ledger(folder, task.identity)
        remove_unfinished(folder, task.identity, ledger)
        ledger.project = task.project
        if note_uploads(folder, ledger):
            write_ledger(folder, task.identity, ledger)
        missing = [run for run in task.runs if not ledger.is_current(folder, task.project, run)]
        if missing:
            _import_wandb()
        for run in missing:
            _replace(run, task, folder, ledger)
            tell(MirrorEvent(what="written", run=run.id))
        if task.mode == "online":
            _upload(folder, task.identity, ledger, tell)


def _import_wandb() -> None:
    try:
        import wandb

        wandb.setup(_settings())
    except Exception as error:  # a broken installation raises whatever it wants
        raise Mc1optError(f"wandb cannot be used: {_one_line(error)}") from error


def _settings() -> "Settings":
    """Nothing is captured or collected: no console, code, git state, packages, metrics or machine."""
    import wandb

    return wandb.Settings(
        console="off",
        disable_code=True,
        disable_git=True,
        disable_job_creation=True,
        host="",
        label_disable=True,
        mode="online",  # whatever `wandb offline` has stored; a run says its own
        save_code=False,
        silent=True,
        symlink=False,
        use_dot_wandb=False,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


# ---- Writing ---------------------------------------------------------------------------------------------


def _replace(run: MirroredRun, task: MirrorTask, folder: Path, ledger: Ledger) -> None:
    """Writes a run, then deletes what was written of it before: the new one holds all that W&B shall have.

    Files that the old one has, and that are not asked for or gone by now, are taken over while they are not
    uploaded: W&B keeps what it was given.
    """
    before = run_folders(folder, run.id)
    known = ledger.runs.get(run.id)
    if not run.files and known is not None and known.files and not known.uploaded:
        run = run.model_copy(update={"files": _files_within(folder / known.folder) or run.files})
    try:
        new = _write(run, task, folder)
    except Exception as error:
        raise Mc1optError(f"W&B run {run.id} cannot be written: {_one_line(error)}") from error
    ledger.runs[run.id] = Written(
        fingerprint=run.fingerprint,
        files=None if run.files is None else [file.sha256 for file in run.files],
        project=task.project,
        folder=new.name,
        trial=run.trial,
        was_best=run.is_best or (known is not None and known.was_best),
    )
    write_ledger(folder, task.identity, ledger)
    for old in before:
        shutil.rmtree(old, ignore_errors=True)


def _files_within(run_folder: Path) -> tuple[AttachedFile, ...]:
    """The files that were attached to a run, as they lie in its folder."""
    # Nothing hidden, and no folder: what a file manager leaves there was not attached.
    paths = sorted(path.absolute() for path in (run_folder / ATTACHED).glob("[!.]*") if path.is_file())
    return tuple(
        AttachedFile(path=str(path), sha256=file_sha256(path)) for path in paths if path.name not in MADE_HERE
    )


def _write(run: MirroredRun, task: MirrorTask, folder: Path) -> Path:
    """Writes a run, and gives its folder."""
    import wandb

    written = wandb.init(
        project=task.project,
        dir=str(folder.parent),
        id=run.id,
        name=run.name,
        group=run.group,
        job_type=run.job_type,
        tags=run.tags,
        config=dict(run.config),
        mode="offline",
        settings=_settings(),
    )
    place = Path(written.settings.sync_dir)
    # W&B puts a copy of a table there, which is uploaded later: it belongs to the run, and goes with it.
    os.environ["WANDB_DATA_DIR"] = str(place / "data")
    _log(written, run)
    if run.files is not None:
        _attach(written, run, run.files, place / ATTACHED)
    written.finish(exit_code=1 if run.failed else 0)
    _check(place, run)
    for needless in ("logs", "tmp"):  # W&B's own, one of them a link to a file that goes
        shutil.rmtree(place / needless, ignore_errors=True)
    return place


def _check(place: Path, run: MirroredRun) -> None:
    """Reads a run back with W&B's own reader: on a full disk W&B finishes it without an error."""
    from wandb.util import get_core_path

    file = place / f"run-{run.id}.wandb"
    reader = [get_core_path(), "leet", "inspect", "--no-observability", "--json", "--summary"]
    read = subprocess.run(
        [*reader, "--run-file", str(file), str(place.parent)], capture_output=True, text=True, check=True
    )
    found = json.loads(read.stdout)
    rows = len(run.history) or (1 if run.leaderboard is not None else 0)
    last = rows - 1 if rows else None
    if (found["run_id"], found["exit_code"], found["step"]) != (run.id, int(run.failed), last):
        raise Mc1optError("it is not whole; is the disk full?")


def _log(written: "Run", run: MirroredRun) -> None:
    written.define_metric(run.axis, hidden=True)
    for name in sorted({name for row in run.history for name in row} - {run.axis}):
        written.define_metric(name, step_metric=run.axis)
    rows: list[dict[str, Any]] = [dict(row) for row in run.history]
    if run.leaderboard is not None:
        # With the last row rather than as one more.
        rows = rows or [{}]
        rows[-1]["leaderboard"] = _table(run.leaderboard)
    for row in rows:
        written.log(row)
    written.summary.update(run.summary)


def _table(leaderboard: Leaderboard) -> Any:
    import wandb

    return wandb.Table(
        columns=list(leaderboard.columns),
        data=[list(row) for row in leaderboard.rows],
        allow_mixed_types=True,  # a column may begin with None
    )


def _attach(written: "Run", run: MirroredRun, files: Sequence[AttachedFile], copies: Path) -> None:
    """Adds files as an artifact, with curve and config; the same ones again are no new version of it."""
    import wandb

    copies.mkdir()
    for file in files:
        shutil.copyfile(file.path, copies / Path(file.path).name)
    for name, content in _curve_and_config(run).items():
        (copies / name).write_bytes(content)
    artifact = wandb.Artifact(f"{run.id}-model", type="model")
    for path in sorted(copies.iterdir()):
        artifact.add_file(str(path), skip_cache=True, policy="immutable")
    written.log_artifact(artifact)


def _curve_and_config(run: MirroredRun) -> dict[str, bytes]:
    """Files, by name, that show what a run holds."""
    names = list(dict.fromkeys(name for row in run.history for name in row))
    lines = [names, *([str(row.get(name, "")) for name in names] for row in run.history)]
    made = {
        "config.json": str(run.config.get("config_json", "{}")).encode(),
        "history.csv": "".join(",".join(line) + "\n" for line in lines).encode(),
    }
    accuracies, losses = (
        [row[name] for row in run.history if name in row] for name in ("validation_accuracy", "loss")
    )
    if accuracies:
        from mc1opt.display.pictures import learning_curve_picture

        made["learning_curve.png"] = learning_curve_picture(run.name, accuracies, losses)
    return made


# ---- Uploading -------------------------------------------------------------------------------------------


def _upload(folder: Path, identity: str, ledger: Ledger, tell: Tell) -> None:
    """Uploads the runs of the study that are not uploaded.

    Raises:
        Mc1optError: not all of them could be.
    """
    left = {
        run_id: folder / entry.folder
        for run_id, entry in ledger.runs.items()
        if not entry.uploaded and (folder / entry.folder).is_dir()
    }
    if not left:
        return
    if not _has_login():
        tell(MirrorEvent(what="no_login"))
        return
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "wandb", "sync", *map(str, left.values())],
        stdin=subprocess.DEVNULL,
        # It finds the service that runs already by WANDB_SERVICE, which W&B has set. Its errors are wanted in
        # our log, and no logs of its own beside the runs.
        env=os.environ | {"WANDB_SILENT": "false", "WANDB_DIR": tempfile.gettempdir()},
    )
    while True:
        ended = process.poll() is not None  # before the look, or the last marks would be missed
        for run_id in [run_id for run_id, place in left.items() if is_uploaded(place)]:
            del left[run_id]
            tell(MirrorEvent(what="uploaded", run=run_id))
        if ended:
            break
        time.sleep(POLL_SECONDS)
    note_uploads(folder, ledger)
    write_ledger(folder, identity, ledger)
    if left:
        raise Mc1optError(f"W&B did not take {len(left)} of them{_last_error(folder)}")


def _has_login() -> bool:
    """Whether there are credentials for W&B's server; nothing is sent, and nobody is asked."""
    import wandb

    try:
        wandb.setup(_settings())
        return bool(wandb.login(prompt=False, verify=False))
    except Exception as error:
        raise Mc1optError(f"W&B's login cannot be used: {_one_line(error)}") from error


def _last_error(folder: Path) -> str:
    """W&B's last message of an error, in parentheses."""
    try:
        lines = (folder / LOG).read_text(errors="replace").splitlines()
    except OSError:
        return ""
    errors = [line.partition("ERROR")[2].strip() for line in lines if "ERROR" in line]
    return f" ({errors[-1]})" if errors else ""


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error).strip().split("\n")[0]
    if isinstance(error, Mc1optError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# ---- The process -----------------------------------------------------------------------------------------


class _Channel:
    """Standard output, taken away from what W&B and its service print: that goes to the log."""

    def __init__(self, log: Path, scratch: Path) -> None:
        self._output = os.dup(1)
        self._scratch = scratch
        try:
            log.parent.mkdir(parents=True, exist_ok=True)
            file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
        except OSError:
            file = os.open(os.devnull, os.O_WRONLY)
        os.dup2(file, 1)
        os.dup2(file, 2)
        os.close(file)

    def tell(self, event: MirrorEvent) -> None:
        """Says something to the parent; ends all if it is gone."""
        try:
            write_all(self._output, event.model_dump_json().encode() + b"\n")
        except OSError:
            _end_all(self._scratch)


def _end_with_parent(scratch: Path) -> None:
    """Ends all when the parent closes our standard input, or dies."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        _end_all(scratch)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def _end_all(scratch: Path) -> NoReturn:
    """Ends this process and its children, and deletes the folder of its task, as the parent would have."""
    kill_descendants(os.getpid())
    if scratch.name.startswith(SCRATCH):
        shutil.rmtree(scratch, ignore_errors=True)
    os._exit(1)


def main() -> NoReturn:
    """Does the task that lies in a file, and says what it did."""
    parser = argparse.ArgumentParser(description="Mirrors runs to W&B; started by mc1opt, not by people.")
    parser.add_argument("--task", required=True, type=Path, metavar="FILE")
    path: Path = parser.parse_args().task
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the parent decides when it ends
    _end_with_parent(path.parent)
    task = MirrorTask.model_validate_json(path.read_bytes())
    channel = _Channel(Path(task.folder) / LOG, path.parent)
    try:
        mirror(task, channel.tell)
    except Mc1optError as error:
        channel.tell(MirrorEvent(what="failed", message=str(error)))
    except OSError as error:
        channel.tell(MirrorEvent(what="failed", message=f"{task.folder} cannot be written: {error.strerror}"))
    kill_descendants(os.getpid())  # all is written; wandb's own way of ending its service may hang
    channel.tell(MirrorEvent(what="done"))
    os._exit(0)


if __name__ == "__main__":
    main()
