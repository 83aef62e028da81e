"""`mc1opt dashboard`: studies in a browser."""

from typing import Annotated

import typer

from mc1opt.cli.options import DEFAULT_STORAGE, Storage


def dashboard(
    study: Annotated[
        str | None, typer.Option(help="The name of a stored study, whose page is shown [default: the list].")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    port: Annotated[int, typer.Option(help="The port; 0 takes a free one.")] = 8080,
    host: Annotated[
        str, typer.Option(help="The address; there is no login, so others than this machine get a warning.")
    ] = "127.0.0.1",
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Watch studies in a browser, also while they are searched.

    It is optuna-dashboard on the study database, with the notes, figures and files that mc1opt adds: learning
    curves, accuracy against parameters beside the published models, the best trials and how to go on from
    them. Ctrl-C ends it.

    \b
    Examples:
      mc1opt dashboard
      mc1opt dashboard --study cnn --open
      mc1opt dashboard --storage other/mc1opt.db --port 0
    """
    from mc1opt.dashboard.server import serve_dashboard

    serve_dashboard(
        storage,
        study=study,
        host=host,
        port=port,
        open_browser=open_browser,
        write=typer.echo,
        warn=lambda line: typer.echo(line, err=True),
    )
