"""Faults 5, 7, 8 and 11: others hold, read and write the database; it is damaged, or another one."""

import contextlib
import json
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from optuna.study import StudyDirection

from mc1opt.database.opening import open_storage
from mc1opt.database.records import StudyRecord
from mc1opt.database.studies import read_study
from tests.doctor.test_database import take_back_schema
from tests.faults.checker import STORAGE, Expected, check
from tests.faults.conftest import CURVES, SEARCH, TRIALS, Commands
from tests.support.command import files_below
from tests.support.curves import Switches
from tests.support.studies import SECONDS, STARTING_POINTS, facts

HELD_SECONDS = 30.0
POLLS_A_SECOND = 10


# ---- 5: another process holds the write lock -------------------------------------------------------------


@pytest.mark.slow
def test_a_search_waits_for_half_a_minute_until_another_process_lets_the_database_go(
    commands: Commands, switches: Switches, undisturbed: StudyRecord
) -> None:
    search = commands.search()
    switches.wait_for_epochs(6)
    with contextlib.closing(sqlite3.connect(STORAGE, timeout=SECONDS, isolation_level=None)) as holder:
        holder.execute("BEGIN IMMEDIATE")
        before = len(switches.epochs())
        time.sleep(HELD_SECONDS)
        assert search.poll() is None
        assert len(switches.epochs()) <= before + 1
        holder.execute("ROLLBACK")
    ended = commands.finish(search)
    assert (ended.code, ended.stderr) == (0, "")
    assert facts(check(commands.folder, "small", Expected(TRIALS))) == facts(undisturbed)


# ---- 7: four searches at once on one new study -----------------------------------------------------------


@pytest.mark.slow
def test_four_searches_of_one_new_study_share_its_trials(commands: Commands, switches: Switches) -> None:
    searches = [commands.search() for _ in range(4)]
    for search in searches:
        ended = commands.finish(search)
        assert (ended.code, ended.stderr) == (0, "")
    record = check(commands.folder, "small", Expected(TRIALS))
    points = Counter(trial.starting_point for trial in record.trials if trial.starting_point)
    assert points == dict.fromkeys(STARTING_POINTS, 1)
    begun = Counter((epoch["seed"], epoch["epoch"]) for epoch in switches.epochs())
    assert set(begun.values()) == {1}  # no trial was trained twice, and no config by two trials:
    trained = [trial.config_id for trial in record.trials if trial.values_by_epoch]
    assert len(set(trained)) == len(trained)
    assert len({epoch["pid"] for epoch in switches.epochs()}) == len(searches)


# ---- 8: a dashboard and a reader look ten times a second -------------------------------------------------

DASHBOARD = """
import sys
from optuna.storages import RDBStorage
from optuna_dashboard import wsgi
from wsgiref.simple_server import make_server
server = make_server("127.0.0.1", 0, wsgi(RDBStorage(sys.argv[1])))
print(server.server_port, flush=True)
server.serve_forever()
"""


@contextlib.contextmanager
def polling(look: Callable[[], object]) -> Iterator[list[object]]:
    """Looks ten times a second meanwhile; what each look gave, or its error."""
    seen: list[object] = []
    done = threading.Event()

    def poll() -> None:
        while not done.wait(1 / POLLS_A_SECOND):
            try:
                seen.append(look())
            except Exception as error:
                seen.append(error)

    thread = threading.Thread(target=poll)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join(SECONDS)


@pytest.mark.slow
def test_a_dashboard_and_a_reader_do_not_disturb_a_search(
    commands: Commands, switches: Switches, undisturbed: StudyRecord
) -> None:
    switches.add("sleep", epoch=None, value=0.1)
    search = commands.search(changes={**CURVES, "dashboard": True})  # as notes are written meanwhile
    switches.wait_for_epochs(1)
    command = [sys.executable, "-W", "ignore", "-c", DASHBOARD, f"sqlite:///{STORAGE}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as dashboard:
        assert dashboard.stdout is not None
        url = f"http://127.0.0.1:{dashboard.stdout.readline().strip()}/api/studies/1?after=0"

        def page() -> int:
            with urllib.request.urlopen(url, timeout=SECONDS) as answer:
                return len(json.load(answer)["trials"])

        try:
            with polling(page) as pages, polling(lambda: len(read_study(STORAGE, "small").trials)) as read:
                ended = commands.finish(search)
        finally:
            dashboard.kill()
    assert (ended.code, ended.stderr) == (0, "")
    for seen in (pages, read):
        assert [look for look in seen if not isinstance(look, int)] == []
        assert len(seen) > 3  # as many as a busy machine allows
        assert seen == sorted(seen)  # type: ignore[type-var]
    assert facts(check(commands.folder, "small", Expected(TRIALS))) == facts(undisturbed)


# ---- 11: a truncated database, one of another program, one of an older Optuna ----------------------------


@pytest.fixture(scope="session")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with an empty study of ours."""
    folder = tmp_path_factory.mktemp("searched")
    storage = open_storage(str(folder / "s.db"), create=True)
    storage.create_new_study([StudyDirection.MAXIMIZE], "small")
    storage.remove_session()
    storage.engine.dispose()
    return folder / "s.db"


def truncate(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def flip_a_bit(path: Path) -> None:
    """Of the byte that says what the first page is. SQLite has no checksums: not every bit is noticed."""
    content = bytearray(path.read_bytes())
    content[100] ^= 0x40
    path.write_bytes(content)


def take_another_program_s(path: Path) -> None:
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")


def empty(path: Path) -> None:
    path.write_bytes(b"")


def take_the_schema_back(path: Path) -> None:
    take_back_schema(str(path))


def take_the_schema_back_for_years(path: Path) -> None:
    """To a time before the table of heartbeats, which nobody may add unasked."""
    take_back_schema(str(path))
    with contextlib.closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("DROP TABLE trial_heartbeats")
        connection.execute("UPDATE alembic_version SET version_num = 'v2.4.0.a'")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (truncate, "damaged|malformed"),
        (flip_a_bit, "malformed"),
        (empty, "is empty"),
        (take_another_program_s, "recipes"),
        (take_the_schema_back, "optuna storage upgrade"),
        (take_the_schema_back_for_years, "optuna storage upgrade"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_a_database_that_cannot_be_used_is_refused_by_every_command_and_stays_as_it_is(
    commands: Commands, searched: Path, mc1opt_here, damage: Callable[[Path], None], message: str
) -> None:
    path = Path(STORAGE)
    path.parent.mkdir()
    shutil.copyfile(searched, path)
    damage(path)
    before = files_below(path.parent)
    for command in (
        (*SEARCH, "--trials", "1"),
        ("show", "--study", "small"),
        ("studies",),
        ("studies", "delete", "small", "--yes"),
    ):
        ended = mc1opt_here(*command)
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.startswith("Error: ")
        assert re.search(message, ended.stderr)
    doctor = mc1opt_here("doctor", "--data", "images")
    assert doctor.returncode == 1
    assert "problem  database" in doctor.stdout
    after = {name: content for name, content in files_below(path.parent).items() if ".lock" not in name}
    assert after == before
