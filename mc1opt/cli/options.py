"""Options shared by several commands. Their numbers and durations are read by `mc1opt.cli.values`."""

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mc1opt.errors import UsageError
from mc1opt.paths import user_path

if TYPE_CHECKING:
    from mc1opt.mirror.writer import Mode
    from mc1opt.workers.engine import Engine


def _storage(text: str) -> str:
    from mc1opt.database.location import user_storage

    return user_storage(text)


def located(storage: str, files: Path | None) -> str:
    """The study database of `--storage` with the folder of `--files`."""
    from mc1opt.database.location import with_files

    return with_files(storage, files)


def _data(text: str) -> Path:
    from mc1opt.data.named import data_path

    return data_path(text)


Study = Annotated[
    str, typer.Option(help="Study definition: a name (./studies/NAME.py, else a built-in one) or a file.")
]
StoredStudy = Annotated[str, typer.Option("--study", help="Name of a stored study.")]
Storage = Annotated[
    str,
    typer.Option(
        help="Study database: a SQLite file or an SQLAlchemy URL.", parser=_storage, envvar="MC1OPT_STORAGE"
    ),
]
Files = Annotated[
    Path | None,
    typer.Option(
        help="Folder of checkpoints, weights and models, which machines may share [default: MC1OPT_FILES, "
        "else beside the study database].",
        parser=user_path,
        metavar="<path>",
    ),
]
Json = Annotated[
    bool,
    typer.Option("--json", help="Print only JSON on standard output; NaN and infinity are null."),
]
Data = Annotated[
    Path | None,
    typer.Option(
        help="Images: cifar10, cifar100, fashion_mnist, mnist or kmnist, downloaded once; or a folder with "
        "train/CLASS/ and test/CLASS/, or CLASS/ alone; or files in the formats of CIFAR-10, MNIST, NumPy. "
        "A name is never a path: give ./mnist for one [default: cifar10].",
        parser=_data,
        metavar="<name or path>",
    ),
]
ImageSize = Annotated[
    int | None,
    typer.Option(
        help="Pixels, height and width, that the images of a folder get [default: by the median, 16 to 64]."
    ),
]
MaxUnreadable = Annotated[
    int | None,
    typer.Option(
        help="Image files that cannot be read and are left out, at most [default: 1 %, and at least 10]."
    ),
]

Timeout = Annotated[str | None, typer.Option(help="Stop cleanly after this time: 90s, 8m, 1h30m.")]
Workers = Annotated[str, typer.Option(help="Number of trainings at once, or auto.")]
WorkerCpus = Annotated[int, typer.Option(help="CPUs, and so threads, of each worker.")]
WorkerGpus = Annotated[
    float | None, typer.Option(help="GPUs of each worker, also a part of one [default: as suits the device].")
]
DeviceName = Annotated[
    str, typer.Option("--device", help="auto, cpu, mps, cuda for all GPUs, or one of them, such as cuda:1.")
]
Ray = Annotated[
    str | None,
    typer.Option(
        help="Train on a Ray cluster: its address, auto for the one that this machine is part of, or local."
    ),
]

Wandb = Annotated[
    str | None,
    typer.Option(
        "--wandb",
        help="Mirror to Weights & Biases: off, offline or online [default: WANDB_MODE, else off].",
    ),
]


def given_engine(
    storage: str, workers: str, device: str, cpus: int, gpus: float | None, ray: str | None
) -> "Engine":
    """Where a command trains, by its options; `storage` says whether machines share its files."""
    from mc1opt.database.location import named_files
    from mc1opt.workers.engine import Engine

    return Engine(workers, device, cpus, gpus, ray, named_files(storage) is not None)


def leave_report(storage: str, study: str, as_json: bool) -> None:
    """Writes a study's report at the end of a command, and tells where it is."""
    from mc1opt.report.page import write_or_warn

    write_or_warn(
        storage,
        study,
        lambda line: typer.echo(line, err=as_json),
        lambda line: typer.echo(line, err=True),
    )


DEFAULT_STORAGE = "storage/mc1opt.db"

Seeds = Annotated[int, typer.Option(help="Trainings of each model, with different seeds.")]


def given_storage(context: typer.Context, storage: str, files: Path | None) -> str:
    """The database of a subcommand, and its files; their options may stand before the subcommand, too."""
    from mc1opt.database.location import default_storage

    before = {} if context.parent is None else context.parent.params
    if storage == default_storage():
        storage = before.get("storage", storage)
    return located(storage, files or before.get("files"))


def print_result(content: Any, lines: Iterable[str], as_json: bool) -> None:
    """Prints a command's result: as JSON, or as lines of text."""
    if as_json:
        print_json(content)
        return
    for line in lines:
        typer.echo(line)


def print_csv(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints rows with the same keys as CSV (RFC 4180, but for the line ends): None is an empty cell."""
    written = io.StringIO()
    writer = csv.DictWriter(written, rows[0] if rows else (), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    typer.echo(written.getvalue(), nl=False)


def print_json(value: Any) -> None:
    """Prints the output of `--json`, with null for NaN and infinity, which JSON does not have."""
    typer.echo(json.dumps(_with_null(value), indent=2, allow_nan=False))


def _with_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _with_null(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_with_null(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


WANDB_MODES: dict[str, "Mode | None"] = {
    "online": "online",
    "run": "online",
    "shared": "online",
    "offline": "offline",
    "dryrun": "offline",
    "disabled": None,
}
"""W&B's values of WANDB_MODE -> our modes; None for off."""


def wandb_mode(option: str | None, default: "Mode | None" = None) -> "Mode | None":
    """The mode of mirroring, from --wandb, else from the variable WANDB_MODE, else `default`; None for off.

    Raises:
        UsageError: there is no such mode.
    """
    if option is not None:
        modes: dict[str, Mode | None] = {"off": None, "offline": "offline", "online": "online"}
        if option not in modes:
            raise UsageError(f"--wandb {option!r} is not a mode. Allowed: off, offline, online.")
        return modes[option]
    variable = os.environ.get("WANDB_MODE", "")
    if variable and variable not in WANDB_MODES:
        known = ", ".join(WANDB_MODES)
        raise UsageError(
            f"WANDB_MODE {variable!r} is not a mode of W&B ({known}). Correct it, or give --wandb."
        )
    return WANDB_MODES[variable] if variable else default
