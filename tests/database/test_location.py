"""A path or a URL."""

import re
from pathlib import Path

import pytest

from mc1opt.database.location import (
    SERVER_ARGUMENTS,
    checkpoints_folder,
    default_storage,
    files_folder,
    models_folder,
    server_arguments,
    shown_storage,
    sqlite_path,
    storage_option,
    storage_url,
    user_storage,
    with_files,
)
from mc1opt.database.opening import open_storage
from mc1opt.errors import UsageError


def test_a_path_is_a_sqlite_file_and_a_url_is_a_url() -> None:
    assert storage_url("a/b.db") == "sqlite:///a/b.db"
    for path in ("a?b#c.db", "100%.db", "a%20b.db", "'quote\".db", "🐈.db"):
        assert sqlite_path(storage_url(path)) == Path(path)
    assert storage_url("sqlite:////tmp/x.db") == "sqlite:////tmp/x.db"


def test_files_lie_beside_the_default_database_and_in_a_folder_of_their_own_for_others() -> None:
    assert files_folder("storage/mc1opt.db") == Path("storage")
    assert files_folder("sqlite:////x/mc1opt.db") == Path("/x")
    assert files_folder("a/b.db") == Path("a/b.db.files")
    assert checkpoints_folder("a/b.db") == Path("a/b.db.files/checkpoints")
    assert models_folder("sqlite:////x/b.db", "s") == Path("/x/b.db.files/models/s")
    assert re.fullmatch(r"host-db-[0-9a-f]{8}\.files", files_folder("postgresql+psycopg://host/db").name)


def test_no_two_databases_of_servers_share_a_folder() -> None:
    servers = [
        "postgresql+psycopg://host/db",
        "postgresql+psycopg://host:5433/db",
        "postgresql+psycopg://host/other",
        "postgresql+psycopg://another/db",
        "postgresql+psycopg://host/d:b",
        "postgresql+psycopg:///db",
        "postgresql+psycopg:///db?host=one",
        "postgresql+psycopg:///db?host=two",
        "postgresql+psycopg://a-b/c",
        "postgresql+psycopg://a/b-c",
        "postgresql+psycopg://host/db?options=-csearch_path%3Dother",
        "mysql+pymysql://host/db",
    ]
    assert len({files_folder(url) for url in servers}) == len(servers)
    assert all(files_folder(url).parent == Path("storage") for url in servers)


@pytest.mark.parametrize(
    "url",
    [
        "postgresql+psycopg://me:secret@host/db",
        "postgresql://HOST:5432/db",
        "postgresql+psycopg://host/db?sslmode=require&connect_timeout=10",
    ],
)
def test_a_database_has_one_folder_whoever_opens_it_and_how(url: str) -> None:
    assert files_folder(url) == files_folder("postgresql+psycopg://host/db")


@pytest.mark.parametrize(
    ("storage", "shown"),
    [
        ("/home/me@here/s.db", "/home/me@here/s.db"),
        ("sqlite:////x/s.db", "sqlite:////x/s.db"),
        ("postgresql+psycopg://me:secret@host/db", "postgresql+psycopg://me:***@host/db"),
        ("postgresql:///db?user=me&password=secret", "postgresql:///db?password=hidden&user=me"),
        ("postgresql+psycopg://me:sec@ret@host/db", "postgresql+psycopg://***"),
        ("postgresql+psycopg://me:secret/db", "postgresql+psycopg://***"),
        ("post gresql://me:secret@host/db", "post gresql://***"),
        ("://", "://***"),
    ],
)
def test_a_password_is_not_shown_and_a_path_stays_as_it_is(storage: str, shown: str) -> None:
    assert shown_storage(storage) == shown


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("nothing://host/x", "SQLAlchemy"),
        ("://", "SQLAlchemy"),
        ("sqlite://", "in memory"),
        ("sqlite://~/x.db", "sqlite:///"),
        ("sqlite://folder/x.db", "sqlite:///"),
        ("postgresq://me:secret@host/db", r"postgresq://me:\*\*\*@host/db"),
        ("postgresql+psycopg://me:sec@ret@host/db", "%40"),
        ("postgresql+psycopg://me:secret/db", "%40"),
    ],
)
def test_what_is_neither_a_file_nor_a_server_is_refused(text: str, named: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=named) as refused:
        open_storage(text, create=True)
    assert not re.search("sec|ret@", str(refused.value))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("storage", "option"),
    [
        ("storage/mc1opt.db", ""),
        ("sqlite:///storage/mc1opt.db", ""),
        ("a b.db", " --storage 'a b.db'"),
        ("postgresql+psycopg://me:secret@host/db", " --storage 'postgresql+psycopg://me:***@host/db'"),
    ],
)
def test_a_command_to_copy_names_the_database_unless_it_is_the_default(storage: str, option: str) -> None:
    assert storage_option(storage) == option


def test_the_variable_is_the_default_and_no_command_to_copy_shows_it(monkeypatch: pytest.MonkeyPatch) -> None:
    assert default_storage() == "storage/mc1opt.db"
    monkeypatch.setenv("MC1OPT_STORAGE", "")
    assert default_storage() == "storage/mc1opt.db"
    monkeypatch.setenv("MC1OPT_STORAGE", "postgresql+psycopg://me:secret@host/db")
    assert default_storage() == "postgresql+psycopg://me:secret@host/db"
    assert storage_option(default_storage()) == ""
    assert storage_option("storage/mc1opt.db") == " --storage storage/mc1opt.db"
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("MC1OPT_STORAGE", "~/s.db")
    assert default_storage() == "/home/me/s.db"


def test_files_go_where_the_option_says_else_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    url = "postgresql+psycopg://me:secret@host/db"
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.setenv("MC1OPT_FILES", "~/files")
    for storage in ("storage/mc1opt.db", "a/b.db", url):
        assert files_folder(storage) == Path("/home/me/files")
        assert checkpoints_folder(with_files(storage, Path("shared"))) == Path("shared/checkpoints")
        assert files_folder(with_files(storage, None)) == Path("/home/me/files")
    named = with_files(url, Path("a b"))
    assert storage_url(named) == url
    assert storage_option(named) == " --storage 'postgresql+psycopg://me:***@host/db' --files 'a b'"
    monkeypatch.setenv("MC1OPT_STORAGE", url)
    assert storage_option(named) == " --files 'a b'"
    monkeypatch.setenv("MC1OPT_FILES", "")
    assert files_folder("a/b.db") == Path("a/b.db.files")


def test_connections_to_a_server_that_has_vanished_end_and_the_url_may_say_when() -> None:
    silent = server_arguments("postgresql+psycopg://somewhere/studies?connect_timeout=3")
    assert silent.keys() == SERVER_ARGUMENTS.keys() - {"connect_timeout"}
    assert server_arguments("sqlite:///s.db") == {}
    assert server_arguments("postgresql+pg8000://somewhere/studies") == {}


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("~/x.db", "HOME/x.db"),
        ("~/my studies/x.db", "HOME/my studies/x.db"),
        ("sqlite:///~/x.db", "sqlite:///HOME/x.db"),
        ("sqlite+pysqlite:///~/x.db?timeout=3", "sqlite+pysqlite:///HOME/x.db?timeout=3"),
        ("~root/x.db", "/root/x.db"),
        ("./~/x.db", "HERE/~/x.db"),
        ("sqlite:///./~/x.db", "sqlite:///HERE/~/x.db"),
        ("sqlite:////~/x.db", "sqlite:////~/x.db"),
        ("x.db", "x.db"),
        ("./x.db", "./x.db"),
        ("", ""),
        ("sqlite://", "sqlite://"),
        ("postgresql+psycopg://me:secret@host/~db", "postgresql+psycopg://me:secret@host/~db"),
        ("nothing://~/x", "nothing://~/x"),
    ],
)
def test_a_tilde_is_the_home_folder_also_in_a_url(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str, meant: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    meant = meant.replace("HOME", str(tmp_path / "home")).replace("HERE", str(tmp_path))
    assert user_storage(given) == meant
