"""Serving optuna-dashboard on a study database, with the files of its trials.

Like its own command, with one thread per request, but finished trials are not read again for each page,
attributes too large for a table are left out, and requests are not logged.
"""

import errno
import ipaddress
import socket
import sys
import warnings
import webbrowser
from collections.abc import Callable, Collection
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import optuna
from optuna.exceptions import StorageInternalError

from mc1opt.dashboard.pages import study_page, update_or_warn
from mc1opt.database import records, study_attributes
from mc1opt.database.artifacts import artifacts_folder
from mc1opt.database.identity import keep_folder
from mc1opt.database.opening import load_study, open_storage
from mc1opt.errors import UsageError

if TYPE_CHECKING:
    from bottle import Bottle

THREADS = 8
"""Database connections, for as many requests at once."""
LAST_PORT = 65535

FIRST = (records.OUTCOME, records.PARAMETERS, records.MACS, records.EPOCH_SECONDS, records.SUMMARY)
"""Attributes shown first."""
LEFT_OUT = (
    records.CONFIG,
    records.SEED,
    records.FIDELITY,
    records.DATA,
    records.LOSSES,
    records.VERSIONS,
    records.COMMIT,
    records.OWNER,
    records.STALLED,
)
"""Attributes not shown: JSON, or the same for all trials."""
INFEASIBLE = ("too_large", "infeasible", "failed")
"""Outcomes of pruned trials that count as violating a constraint."""
LONGEST = 200
"""Characters shown of an attribute, such as a failure's message."""
STUDY_DETAIL = "/api/studies/<study_id:int>"
"""The dashboard's route of a study with its trials."""


def serve_dashboard(
    storage: str,
    *,
    study: str | None,
    host: str,
    port: int,
    open_browser: bool,
    write: Callable[[str], None],
    warn: Callable[[str], None],
) -> None:
    """Brings the pages of stored studies up to date and serves them until SIGINT.

    Args:
        storage: the study database, a path or a URL.
        study: the study whose page is shown; None for the list of studies.
        host: name or address of this machine.
        port: 0 for a free one.
        open_browser: whether to open the page in a browser.
        write: receives lines for people, such as the address.
        warn: receives warnings.

    Raises:
        StorageError: there is no such database or study.
        UsageError: the host or port cannot be used.
    """
    database = open_storage(storage, create=False, threads=THREADS)
    cached = optuna.storages.get_storage(database)
    page = "/dashboard" if study is None else study_page(load_study(database, study))
    with _bind(host, port, dashboard_app(cached, storage)) as server:
        try:
            if not is_loopback(host):
                warn(
                    f"Warning: the dashboard has no login. Anyone who reaches {host} can see, change and "
                    "delete all studies; --host 127.0.0.1 limits it to this machine."
                )
            # Studies of other programs are shown as they are.
            ours = [
                each.study_name
                for each in database.get_all_studies()
                if study_attributes.STUDY_DEFINITION in each.user_attrs
            ]
            for name in ours:
                try:  # a study's page can rename it
                    keep_folder(load_study(database, name))
                except StorageInternalError as error:  # a read-only database can still be shown
                    warn(f"Warning: study {name!r} would lose its files if it were renamed: {error}")
            for name in ours if study is None else [study]:
                update_or_warn(storage, name, warn)
                # Read here, so that the first page does not have to wait.
                optuna.load_study(study_name=name, storage=cached).get_trials(deepcopy=False)
            shown = f"[{host}]" if ":" in host else host
            address = f"http://{shown}:{server.server_port}{page}"
            write(f"Dashboard:   {address}   (Ctrl-C ends it)")
            if open_browser and not webbrowser.open(address):
                warn("Warning: no browser could be opened; open the address yourself.")
            with warnings.catch_warnings():
                # Importances warn of each rare parameter on every request.
                warnings.filterwarnings("ignore", module=r"optuna\.importance")
                server.serve_forever()
        except KeyboardInterrupt:
            return


def dashboard_app(cached: optuna.storages.BaseStorage, storage: str) -> "Bottle":
    """The dashboard as a WSGI application.

    Args:
        cached: the study database from `optuna.storages.get_storage`, which caches finished trials.
        storage: its path or URL, which determines the folder of artifacts.
    """
    from optuna.artifacts import FileSystemArtifactStore
    from optuna_dashboard import wsgi

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    app: Bottle = wsgi(cached, artifact_store=FileSystemArtifactStore(artifacts_folder(storage)))
    app.install(_ReadableTrials(cached))
    return app


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a host name or address."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class _ReadableTrials:
    """Bottle plugin that makes trials readable on a study's page.

    In mc1opt's studies it marks trials of other programs, which are never the best.
    """

    name, api = "readable_trials", 2

    def __init__(self, storage: optuna.storages.BaseStorage) -> None:
        self._storage = storage

    def apply(self, callback: Callable[..., Any], route: Any) -> Callable[..., Any]:
        if (route.method, route.rule) != ("GET", STUDY_DETAIL):
            return callback

        def readable(*arguments: Any, **named: Any) -> Any:
            detail = callback(*arguments, **named)
            if isinstance(detail, dict) and "trials" in detail:
                self._mark_foreign(detail, named["study_id"])
                for trial in [*detail["trials"], *detail["best_trials"]]:
                    _make_readable(trial)
                columns = {column["key"]: column for column in detail["union_user_attrs"]}
                detail["union_user_attrs"] = [columns[key] for key in _in_order(columns)]
            return detail

        return readable

    def _mark_foreign(self, detail: dict[str, Any], study_id: int) -> None:
        if study_attributes.STUDY_DEFINITION not in self._storage.get_study_user_attrs(study_id):
            return
        stored = self._storage.get_all_trials(study_id, deepcopy=False)
        foreign = {trial.number: why for trial in stored if (why := records.foreign(trial))}
        for trial in detail["trials"]:
            if trial["number"] in foreign:
                said = {"key": records.OUTCOME, "value": f"foreign: {foreign[trial['number']]}"}
                trial["user_attrs"] = [*trial["user_attrs"], said]
                trial["constraints"] = [1.0]
        if any(trial["number"] in foreign for trial in detail["best_trials"]):
            from optuna_dashboard._serializer import serialize_frozen_trial

            best = records.by_value(map(records.trial_record, stored))
            attributes = self._storage.get_study_system_attrs(study_id)
            detail["best_trials"] = [
                serialize_frozen_trial(study_id, stored[trial.number], attributes) for trial in best[:1]
            ]


def _make_readable(trial: dict[str, Any]) -> None:
    attributes = {attribute["key"]: attribute["value"] for attribute in trial["user_attrs"]}
    trial["user_attrs"] = [{"key": key, "value": _shown(attributes[key])} for key in _in_order(attributes)]
    if trial["state"] == "Pruned" and attributes.get(records.OUTCOME) in INFEASIBLE:
        # The dashboard reads constraints from where Optuna kept them before version 5.
        trial["constraints"] = [1.0]


def _in_order(keys: Collection[str]) -> list[str]:
    """Keys of the attributes that are shown, the most useful ones first."""
    return [key for key in FIRST if key in keys] + [key for key in keys if key not in (*FIRST, *LEFT_OUT)]


def _shown(value: str) -> str:
    """Shortened, and without blanks, at which a narrow column would break it into many lines."""
    return (value if len(value) <= LONGEST else value[:LONGEST] + " ...").replace(" ", "\N{NO-BREAK SPACE}")


# ---- The server ------------------------------------------------------------------------------------------


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # running requests do not delay the end

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignores browsers that close the connection early."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _ServerIPv6(_Server):
    address_family = socket.AF_INET6


class _Handler(WSGIRequestHandler):
    def log_message(self, format: str, *arguments: Any) -> None:
        """Logs nothing: the page sends requests every few seconds."""


def _bind(host: str, port: int, app: "Bottle") -> WSGIServer:
    if not 0 <= port <= LAST_PORT:
        raise UsageError(
            f"--port {port} is not a port; give a number from 1 to {LAST_PORT}, or 0 for a free one."
        )
    server_class = _ServerIPv6 if ":" in host else _Server
    try:
        return make_server(host, port, app, server_class=server_class, handler_class=_Handler)
    except socket.gaierror as error:
        raise UsageError(f"--host {host!r} is not an address of this machine: {error.strerror}.") from error
    except OSError as error:
        what_to_do = "Choose others with --host and --port"
        if error.errno == errno.EADDRINUSE:
            what_to_do = "Perhaps a dashboard runs there already. Choose another port with --port"
        raise UsageError(
            f"port {port} of {host} cannot be used: {error.strerror}. {what_to_do}, such as 0 for a free one."
        ) from error
