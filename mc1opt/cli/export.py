"""`mc1opt export`: a model in formats that other programs read."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from mc1opt.cli.options import DEFAULT_STORAGE, Data, Files, Json, Storage, located, print_json
from mc1opt.paths import user_path


def export(
    study: Annotated[str | None, typer.Option(help="Name of a stored study.")] = None,
    trial: Annotated[
        int | None, typer.Option(help="Trial whose weights are exported [default: the best].")
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(
            help="Model folder instead of a trial, such as storage/models/cnn.",
            parser=user_path,
            metavar="<path>",
        ),
    ] = None,
    formats: Annotated[
        list[str] | None,
        typer.Option("--format", help="onnx, pt2, safetensors or python; repeatable [default: onnx]."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            help="Output folder [default: storage/exports/STUDY].",
            parser=user_path,
            metavar="<path>",
        ),
    ] = None,
    half: Annotated[bool, typer.Option("--half", help="Export in float16.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Replace existing files.")] = False,
    storage: Storage = DEFAULT_STORAGE,
    files: Files = None,
    data: Data = None,
    as_json: Json = False,
) -> None:
    """Export a model as ONNX, pt2, safetensors or a Python script.

    Exports a trial of a study, or a model folder. Each file is then opened by its own runtime, and must make
    the same decisions as the model on the validation images and on 1,000 images of noise.

    \b
    Examples:
      mc1opt export --study cnn
      mc1opt export --study cnn --trial 7 --format onnx --format pt2 --output exported
      mc1opt export --model storage/models/cnn --format safetensors --half
      mc1opt export --study cnn --format python
    """
    from mc1opt.export.export import DEFAULT_FORMATS, ExportCommand
    from mc1opt.export.export import export as export_model

    shown = sys.stderr if as_json else sys.stdout
    exported = export_model(
        ExportCommand(
            storage=located(storage, files),
            study=study,
            trial=trial,
            model=model,
            formats=tuple(formats) if formats else DEFAULT_FORMATS,
            output=output,
            half=half,
            force=force,
            data=data,
        ),
        write=lambda line: typer.echo(line, file=shown),
        output=shown,
    )
    if as_json:
        print_json([file.to_json() for file in exported])
