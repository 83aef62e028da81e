"""`mc1opt dashboard`: watching studies in a browser."""

from typing import Annotated

import typer

from mc1opt.cli.options import DEFAULT_STORAGE, Files, Storage, located


def dashboard(
    study: Annotated[
        str | None, typer.Option(help="Stored study whose page is shown [default: the list of studies].")
    ] = None,
    storage: Storage = DEFAULT_STORAGE,
    files: Files = None,
    port: Annotated[int, typer.Option(help="Port; 0 for a free one.")] = 8080,
    host: Annotated[
        str,
        typer.Option(help="Address; there is no login, so one that others reach gives a warning."),
    ] = "127.0.0.1",
    open_browser: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Watch studies in a browser, also during a search.

    This is optuna-dashboard on the study database, with notes, figures and files added: learning curves,
    accuracy against parameters beside the published models, the best trials and the next commands. Ctrl-C
    stops it.

    \b
    Examples:
      mc1opt dashboard
      mc1opt dashboard --study cnn --open
      mc1opt dashboard --storage other/mc1opt.db --port 0
    """
    from mc1opt.dashboard.server import serve_dashboard

    serve_dashboard(
        located(storage, files),
        study=study,
        host=host,
        port=port,
        open_browser=open_browser,
        write=typer.echo,
        warn=lambda line: typer.echo(line, err=True),
    )
