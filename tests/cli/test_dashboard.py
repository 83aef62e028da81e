"""`mc1opt dashboard`: a real server on a real study, and how it ends."""

import json
import signal
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from optuna_dashboard import get_note

from mc1opt.dashboard import pages as dashboard
from mc1opt.database.opening import load_study, open_storage
from tests.support.command import TINY_SEARCH, finish, output_of

STOP_SECONDS = 30.0


def address_of(process) -> str:
    """What the server says first; it has begun when it says so."""
    words = process.stdout.readline().split()
    assert words[0] == "Dashboard:", process.stderr.read()
    return words[1]


def fetch(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=60.0) as answer:
        return answer.read()


def test_it_serves_the_page_that_it_names_until_ctrl_c(finished: Path, start) -> None:
    server = start("dashboard", "--study", "tiny", "--port", "0")
    address = address_of(server)
    assert address.startswith("http://127.0.0.1:")
    assert b"<title>Optuna Dashboard" in fetch(address)
    detail = json.loads(fetch(address.replace("/dashboard/", "/api/")))
    assert detail["name"] == "tiny"
    assert len(detail["plotly_graph_objects"]) == 4
    best = max((trial for trial in detail["trials"] if trial["artifacts"]), key=lambda t: t["values"])
    path = f"/artifacts/{best['study_id']}/{best['trial_id']}/{best['artifacts'][0]['artifact_id']}"
    assert fetch(address.partition("/dashboard")[0] + path)
    with ThreadPoolExecutor(8) as many:
        api = address.replace("/dashboard/", "/api/")
        assert len(set(many.map(fetch, [api] * 8))) == 1
    server.send_signal(signal.SIGINT)
    output_of(finish(server, STOP_SECONDS))


@pytest.mark.slow
def test_open_shows_the_page_in_the_browser(finished: Path, start, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = finished / "browser"
    browser.write_text('#!/bin/sh\necho "$1" > opened\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", f"{browser} %s")
    server = start("dashboard", "--port", "0", "--open")
    address = address_of(server)
    assert address.endswith("/dashboard")
    assert json.loads(fetch(address.replace("/dashboard", "/api/studies")))["study_summaries"]
    assert Path("opened").read_text().strip() == address
    server.send_signal(signal.SIGINT)
    assert finish(server, STOP_SECONDS).returncode == 0


@pytest.mark.slow
def test_a_host_that_others_reach_gives_a_warning(finished: Path, start) -> None:
    server = start("dashboard", "--host", "0.0.0.0", "--port", "0")
    assert address_of(server).startswith("http://0.0.0.0:")
    server.send_signal(signal.SIGINT)
    assert "login" in finish(server, STOP_SECONDS).stderr


@pytest.mark.slow
@pytest.mark.usefixtures("curve_pool")
def test_a_search_keeps_the_page_up_to_date(tiny: Path, mc1opt_here, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dashboard, "LEAST_SECONDS", 0.0)
    output_of(mc1opt_here(*TINY_SEARCH, "--trials", "1", "--confirm", "0"))
    assert "Best so far" in get_note(load_study(open_storage("storage/mc1opt.db", create=False), "tiny"))


@pytest.mark.slow
def test_a_retraining_brings_the_page_up_to_date(finished: Path, mc1opt_here) -> None:
    command = ("retrain", "--study", "tiny", "--top", "1", "--seeds", "1", "--epochs", "1", "--workers", "1")
    output_of(mc1opt_here(*command))
    assert "## Retrained" in get_note(load_study(open_storage("storage/mc1opt.db", create=False), "tiny"))
