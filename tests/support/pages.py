"""The dashboard's pages as a browser gets them, without a server: requests to its WSGI application."""

import io
import json
from typing import Any
from wsgiref.util import setup_testing_defaults

import optuna

from mc1opt.dashboard.server import THREADS, dashboard_app
from mc1opt.database.opening import open_storage


class Pages:
    """The dashboard on a study database."""

    def __init__(self, storage: str = "s.db") -> None:
        database = open_storage(storage, create=False, threads=THREADS)
        self._app = dashboard_app(optuna.storages.get_storage(database), storage)

    def get(self, path: str, posted: Any = None) -> tuple[str, dict[str, str], bytes]:
        """Status, headers and body; of a POST where there is something to post, as JSON."""
        path, _, query = path.partition("?")
        environ: dict[str, Any] = {"PATH_INFO": path, "QUERY_STRING": query, "wsgi.input": io.BytesIO()}
        if posted is not None:
            content = json.dumps(posted).encode()
            environ |= {"REQUEST_METHOD": "POST", "CONTENT_TYPE": "application/json"}
            environ |= {"wsgi.input": io.BytesIO(content), "CONTENT_LENGTH": str(len(content))}
        setup_testing_defaults(environ)
        answer: list[Any] = []
        body = self._app(environ, lambda status, headers, *_: answer.extend([status, dict(headers)]))
        try:
            answered = b"".join(body)
        finally:
            getattr(body, "close", lambda: None)()
        return answer[0], answer[1], answered

    def json(self, path: str) -> Any:
        """What a route of the API gives."""
        status, _, body = self.get(path)
        assert status == "200 OK", (status, body)
        return json.loads(body)

    def study(self, name: str = "s") -> dict[str, Any]:
        """All that the page of a study gets."""
        studies = {entry["study_name"]: entry["study_id"] for entry in self.studies()}
        detail: dict[str, Any] = self.json(f"/api/studies/{studies[name]}?after=0")
        return detail

    def rename(self, name: str, new: str) -> None:
        """Renames a study, as its page does."""
        studies = {entry["study_name"]: entry["study_id"] for entry in self.studies()}
        status, _, body = self.get(f"/api/studies/{studies[name]}/rename", {"study_name": new})
        assert status.startswith("201"), (status, body)

    def studies(self) -> list[dict[str, Any]]:
        """The list of studies."""
        listed: list[dict[str, Any]] = self.json("/api/studies")["study_summaries"]
        return listed

    def artifacts(self, trial: dict[str, Any]) -> dict[str, bytes]:
        """The files of a trial (of `study`), by name."""
        found = {}
        for meta in trial["artifacts"]:
            path = f"/artifacts/{trial['study_id']}/{trial['trial_id']}/{meta['artifact_id']}"
            status, headers, body = self.get(path)
            assert status == "200 OK"
            assert headers["Content-Type"] == meta["mimetype"]
            found[meta["filename"]] = body
        return found
