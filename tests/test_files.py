"""Records that are read back whatever a crash left at the end, files replaced at once, and locks."""

import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from mc1opt.errors import StorageError, UsageError
from mc1opt.files import append_line, exclusive, locked, read_lines, read_object, write_whole

PATH = Path("folder/records.jsonl")
RECORDS = [{"seed": 2**63 - 1, "value": 0.1 + 0.2}, {"text": "line\nfeed, é"}]


def test_what_is_appended_is_read_back_in_its_order() -> None:
    assert read_lines(PATH) == []
    for record in RECORDS:
        append_line(PATH, record)
    assert read_lines(PATH) == RECORDS
    assert len(PATH.read_text().splitlines()) == 2


@pytest.mark.parametrize("half", ['{"value": 0.', '{"value": 0.5}', "\xff"], ids=["cut", "no feed", "bytes"])
def test_a_half_written_last_line_is_no_record_and_goes_with_the_next_one(half: str) -> None:
    append_line(PATH, RECORDS[0])
    whole = PATH.read_bytes()
    PATH.write_bytes(whole + half.encode("latin-1"))
    assert read_lines(PATH) == RECORDS[:1]
    append_line(PATH, RECORDS[1])
    assert read_lines(PATH) == RECORDS
    assert PATH.read_bytes() == whole + json.dumps(RECORDS[1]).encode() + b"\n"


@pytest.mark.parametrize("line", ["{", "[1]", ""], ids=["cut", "list", "empty"])
def test_damage_elsewhere_is_named_with_its_line(line: str) -> None:
    append_line(PATH, RECORDS[0])
    PATH.write_text(PATH.read_text() + line + "\n" + PATH.read_text())
    with pytest.raises(StorageError, match=r"records\.jsonl, line 2 is"):
        read_lines(PATH)


def test_a_file_that_cannot_be_written_is_an_error_for_people() -> None:
    Path("folder").touch()
    with pytest.raises(StorageError, match="cannot be written"):
        append_line(PATH, RECORDS[0])


def test_who_appends_waits_for_another_one_who_does() -> None:
    append_line(PATH, RECORDS[0])
    thread = threading.Thread(target=append_line, args=(PATH, RECORDS[1]))
    with locked(PATH):
        thread.start()
        thread.join(0.3)
        assert thread.is_alive()
        assert read_lines(PATH) == RECORDS[:1]
    thread.join(10)
    assert read_lines(PATH) == RECORDS


def test_a_number_that_json_does_not_have_is_refused_before_anything_is_written() -> None:
    with pytest.raises(ValueError, match="JSON"):
        append_line(PATH, {"value": float("nan")})
    assert not PATH.exists()


@pytest.mark.parametrize("content", [None, b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_an_object_that_is_not_there_or_damaged_is_empty(content: bytes | None) -> None:
    path = Path("object.json")
    if content is not None:
        path.write_bytes(content)
    assert read_object(path) == {}
    path.write_text('{"a": 1}')
    assert read_object(path) == {"a": 1}


def test_a_file_is_replaced_at_once_and_nothing_is_left_beside_it(monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(PATH, b"old")
    seen = []
    replace = Path.replace

    def look(temporary: Path, path: Path) -> None:
        seen.append((temporary.read_bytes(), path.read_bytes()))
        replace(temporary, path)

    monkeypatch.setattr(Path, "replace", look)
    write_whole(PATH, b"new")
    assert seen == [(b"new", b"old")]
    assert [path.read_bytes() for path in PATH.parent.iterdir()] == [b"new"]


def test_a_file_that_cannot_be_replaced_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    write_whole(PATH, b"old")
    full = OSError(28, "No space left on device")
    monkeypatch.setattr("os.fsync", lambda _descriptor: (_ for _ in ()).throw(full))
    with pytest.raises(OSError, match="No space"):
        write_whole(PATH, b"new")
    assert [path.read_bytes() for path in PATH.parent.iterdir()] == [b"old"]


FOLDER = Path("a/b")
HOLDER = """
import sys, time
from pathlib import Path
from mc1opt.files import exclusive
with exclusive(Path("a/b"), "busy"):
    print(flush=True)
    time.sleep(60)
"""


def test_a_folder_is_held_until_its_process_ends_however_it_ends() -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        with pytest.raises(UsageError, match="they are busy"), exclusive(FOLDER, "they are busy"):
            pass
        holder.kill()
    with exclusive(FOLDER, "busy"), pytest.raises(BlockingIOError), locked(FOLDER / ".lock", wait=False):
        pass
    with exclusive(FOLDER, "busy"):
        pass


def test_a_folder_that_cannot_be_made_is_named() -> None:
    Path("a").write_text("")
    with pytest.raises(StorageError, match="a/b"), exclusive(FOLDER, "busy"):
        pass
