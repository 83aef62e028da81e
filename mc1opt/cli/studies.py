"""`mc1opt studies`: listing study definitions and stored studies, and deleting one."""

from typing import Annotated

import typer

from mc1opt.cli.options import DEFAULT_STORAGE, Files, Json, Storage, given_storage, print_result

app = typer.Typer(name="studies", rich_markup_mode=None)


@app.callback(invoke_without_command=True)
def studies(
    context: typer.Context, storage: Storage = DEFAULT_STORAGE, files: Files = None, as_json: Json = False
) -> None:
    """List study definitions and stored studies; delete a stored one.

    \b
    Examples:
      mc1opt studies
      mc1opt studies --json
      mc1opt studies delete cnn
    """
    if context.invoked_subcommand is not None:
        return
    from mc1opt.search.catalogue import catalogue, catalogue_lines

    found = catalogue(given_storage(context, storage, files))
    print_result(found.to_json(), catalogue_lines(found), as_json)


@app.command("delete")
def delete(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="Name of the stored study.")],
    storage: Storage = DEFAULT_STORAGE,
    files: Files = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete a stored study with its trials and kept weights; retrained models stay.

    \b
    Examples:
      mc1opt studies delete cnn
      mc1opt studies delete cnn --yes
    """
    from mc1opt.database.location import models_folder
    from mc1opt.database.studies import delete_study, open_for_deletion

    storage = given_storage(context, storage, files)
    victim = open_for_deletion(storage, name)
    if not yes and not typer.confirm(f"Delete study {name!r} with its {victim.trials} trials?"):
        typer.echo("Nothing was deleted.", err=True)
        raise typer.Exit(1)
    sharing = delete_study(victim)
    typer.echo(f"Deleted study {name!r}.")
    if sharing:
        typer.echo(f"Its weights stay: its copy {', '.join(map(repr, sharing))} shares them.")
    if (models := models_folder(storage, victim.folder)).exists():
        typer.echo(f"Its retrained model stays in {models}.")
