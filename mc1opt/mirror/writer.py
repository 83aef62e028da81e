"""W&B itself: runs written in its offline format, and uploaded with `wandb sync`. Only here it is imported.

Runs are always written offline first, which needs neither login nor network, so that a failed upload loses
none. Any call of wandb may hang for good: `Mirroring.run` is for a thread that nobody waits for, in a process
that ends with `kill_children` and `os._exit`. By itself wandb's service ends with its parent process, but may
go on with an upload before.
"""

import contextlib
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import psutil

from mc1opt.errors import Mc1optError
from mc1opt.mirror.ledger import Ledger, Written
from mc1opt.mirror.runs import AttachedFile, MirroredRun
from mc1opt.text import first_line
from mc1opt.training.model_folder import file_sha256

if TYPE_CHECKING:
    from wandb import Run, Settings

Mode = Literal["offline", "online"]

SCRATCH = ".mc1opt-scratch"
"""The folder for what wandb leaves behind and nobody needs."""
LOG = "mirror.log"
"""What wandb printed in the last mirroring."""
ATTACHED = "attached"
"""The folder, within a run's, with copies of the files uploaded with it: the originals may go before that."""
MADE_HERE = ("config.json", "history.csv", "learning_curve.png")
"""Files of an artifact that are made of the run itself."""
ROOM_BYTES = 1 << 20
"""Bytes that must fit on the disk after a run was written."""
PASSED_ON = (
    "WANDB_API_KEY",
    "WANDB_APP_URL",
    "WANDB_BASE_URL",
    "WANDB_CONFIG_DIR",
    "WANDB_CREDENTIALS_FILE",
    "WANDB_ENTITY",
    "WANDB_IDENTITY_TOKEN_FILE",
    "WANDB_INSECURE_DISABLE_SSL",
)
"""W&B's environment variables that stay: they say which account, and which server. The others would move or
rename the runs, or upload code and console."""


@dataclass
class Mirroring:
    """A mirroring of a study in progress.

    Args:
        runs: what W&B shall hold.
        ledger: what was written before; its project is where the runs go.
        mode: "online" uploads what is not uploaded.
    """

    runs: Sequence[MirroredRun]
    ledger: Ledger
    mode: Mode
    written: list[str] = field(default_factory=list)
    """Ids of the runs written, in order."""
    no_login: bool = False
    """Whether runs wait for a login to be uploaded."""
    error: str | None = None
    """Why not all was done."""

    def run(self) -> None:
        """Writes the runs that are not there as they shall be, then uploads. Raises nothing."""
        try:
            for run in [run for run in self.runs if not self.ledger.is_current(run)]:
                _set_up()
                self._replace(run)
                self.written.append(run.id)
            waiting = self.ledger.waiting()
            if self.mode == "online" and waiting:
                self._upload(list(waiting.values()))
        except Exception as error:  # wandb raises whatever it wants
            self.error = _one_line(error)

    def _replace(self, run: MirroredRun) -> None:
        """Writes a run, then deletes its older folders: the new one holds all that W&B shall have.

        Files that were attached and not uploaded are kept, where none are asked for or theirs are gone.
        """
        folder, known = self.ledger.folder, self.ledger.runs.get(run.id)
        before = [file.parent for file in folder.glob(f"offline-run-*/run-{run.id}.wandb")]
        if not run.files and known is not None and known.files and not known.uploaded:
            run = replace(run, files=_files_within(folder / known.folder) or run.files)
        try:
            new = _write(run, str(self.ledger.project), folder)
        except Exception as error:
            raise Mc1optError(f"W&B run {run.id} cannot be written: {_one_line(error)}") from error
        self.ledger.runs[run.id] = Written(
            fingerprint=run.fingerprint,
            files=None if run.files is None else [file.sha256 for file in run.files],
            project=str(self.ledger.project),
            folder=new.name,
            trial=run.trial,
            was_best=run.is_best or (known is not None and known.was_best),
        )
        self.ledger.save()
        for old in before:
            shutil.rmtree(old, ignore_errors=True)

    def _upload(self, places: list[Path]) -> None:
        _set_up()
        import wandb

        self.no_login = not wandb.login(prompt=False, verify=False)
        if self.no_login:
            return
        (command,) = entry_points(group="console_scripts", name="wandb")
        command.load()(["sync", *map(str, places)], standalone_mode=False)
        left = [place for place in places if not any(place.glob("*.wandb.synced"))]
        if left:
            raise Mc1optError(f"W&B did not take {len(left)} of them; see {self.ledger.folder / LOG}")


@contextlib.contextmanager
def surroundings(folder: Path) -> Iterator[None]:
    """Runs wandb in an empty folder, which takes its temporary files, and writes what it prints to a log.

    The environment variables of this process stay changed.

    Args:
        folder: where the runs lie.

    Raises:
        OSError: the folder cannot be written.
    """
    scratch = str(folder / SCRATCH)
    shutil.rmtree(scratch, ignore_errors=True)  # a killed mirroring has left it
    Path(scratch).mkdir()
    for name in os.environ.keys() - set(PASSED_ON):
        if name.startswith("WANDB_"):
            del os.environ[name]
    for kind in ("DIR", "CACHE_DIR", "DATA_DIR", "ARTIFACT_DIR"):
        os.environ[f"WANDB_{kind}"] = scratch
    os.environ["WANDB_ERROR_REPORTING"] = "false"  # it goes over the network
    tempfile.tempdir = scratch
    output = {number: os.dup(number) for number in (1, 2)}
    with (folder / LOG).open("w") as log:
        for number in output:
            os.dup2(log.fileno(), number)
    try:
        with contextlib.chdir(scratch):  # wandb reads config-defaults.yaml and more where it is started
            yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in output.items():
            os.dup2(copy, number)
            os.close(copy)
        shutil.rmtree(scratch, ignore_errors=True)


def kill_children(pid: int) -> None:
    """Kills all that a process has started, in whichever group it is."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def _set_up() -> None:
    try:
        import wandb

        wandb.setup(_settings())
    except Exception as error:
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
        symlink=False,
        use_dot_wandb=False,
        x_disable_machine_info=True,
        x_disable_meta=True,
        x_disable_stats=True,
        x_save_requirements=False,
    )


# ---- One run ---------------------------------------------------------------------------------------------


def _write(run: MirroredRun, project: str, folder: Path) -> Path:
    """Writes a run and returns its folder."""
    import wandb

    written = wandb.init(
        project=project,
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
    _check_room(place)
    for needless in ("logs", "tmp"):  # W&B's own, one of them a link to a file that goes
        shutil.rmtree(place / needless, ignore_errors=True)
    return place


def _log(written: "Run", run: MirroredRun) -> None:
    import wandb

    written.define_metric(run.axis, hidden=True)
    for name in sorted({name for row in run.history for name in row} - {run.axis}):
        written.define_metric(name, step_metric=run.axis)
    rows: list[dict[str, Any]] = [dict(row) for row in run.history]
    if run.leaderboard is not None:
        # With the last row rather than as one more; a column may begin with None.
        table = wandb.Table(run.leaderboard["columns"], run.leaderboard["rows"], allow_mixed_types=True)
        rows = rows or [{}]
        rows[-1]["leaderboard"] = table
    for row in rows:
        written.log(row)
    written.summary.update(run.summary)


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
    """Files that show what a run holds, by name: `MADE_HERE`."""
    names = list(dict.fromkeys(name for row in run.history for name in row))
    lines = [names, *([str(row.get(name, "")) for name in names] for row in run.history)]
    made = {
        "config.json": str(run.config.get("config_json", "{}")).encode(),
        "history.csv": "".join(",".join(line) + "\n" for line in lines).encode(),
    }
    metric = str(run.config.get("metric", "accuracy"))
    values, losses = (
        [row[name] for row in run.history if name in row] for name in (f"validation_{metric}", "loss")
    )
    if values:
        from mc1opt.display.pictures import learning_curve_picture

        made["learning_curve.png"] = learning_curve_picture(run.name, values, losses, metric)
    return made


def _files_within(run_folder: Path) -> tuple[AttachedFile, ...]:
    """The files that were attached to a run, as they lie in its folder."""
    # Hidden files and folders were not attached: file managers leave them there.
    paths = sorted(path.absolute() for path in (run_folder / ATTACHED).glob("[!.]*") if path.is_file())
    return tuple(
        AttachedFile(path=str(path), sha256=file_sha256(path)) for path in paths if path.name not in MADE_HERE
    )


def _check_room(place: Path) -> None:
    """Writes and deletes a file: W&B finishes a run without an error when the disk is full."""
    with (place / "room").open("wb") as file:
        file.write(bytes(ROOM_BYTES))
        file.flush()
        os.fsync(file.fileno())
    (place / "room").unlink()


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = first_line(error)
    if isinstance(error, Mc1optError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
