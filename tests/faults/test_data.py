"""Fault 18: images are missing, not those, changed later; the cache can only be read.

Half fetched, or not CIFAR-10: tests/data/test_sources.py, with real processes that fetch.
"""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from mc1opt.data.cache import VERIFIED
from mc1opt.data.sources import find_data
from tests.faults.checker import STORAGE, Expected, check
from tests.faults.conftest import SEARCH, TRIALS, Commands
from tests.support.command import files_below
from tests.support.image_sets import change_a_bit

GO_ON = (*SEARCH, "--trials", str(TRIALS), "--workers", "1")


def remove(images: Path) -> None:
    shutil.rmtree(images)


def remove_a_file(images: Path) -> None:
    (images / "data_batch_3.bin").unlink()


def cut_a_file_off(images: Path) -> None:
    path = images / "data_batch_3.bin"
    path.write_bytes(path.read_bytes()[:-100])


def give_a_label_that_is_none(images: Path) -> None:
    path = images / "test_batch.bin"
    path.write_bytes(b"\xff" + path.read_bytes()[1:])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (remove, "--data images does not exist"),
        (remove_a_file, "data_batch_3.bin"),
        (cut_a_file_off, "data_batch_3.bin"),
        (give_a_label_that_is_none, "label"),
    ],
    ids=lambda value: value.__name__ if callable(value) else "",
)
def test_images_that_cannot_be_used_are_an_error_before_anything_is_made(
    commands: Commands, mc1opt_here, damage: Callable[[Path], None], message: str
) -> None:
    damage(Path("images"))
    before = files_below(Path())
    ended = mc1opt_here(*GO_ON)
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("Error: ")
    assert message in ended.stderr
    assert files_below(Path()) == before


@pytest.mark.slow
def test_other_images_are_another_study(commands: Commands) -> None:
    """Between two runs somebody puts other images where the first ones were."""
    commands.go_on(trials=2)
    before = Path(STORAGE).read_bytes()
    path = Path("images/data_batch_1.bin")
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    ended = commands.finish(commands.search(trials=4))
    assert ended.code == 2
    assert "the data differs" in ended.stderr
    assert Path(STORAGE).read_bytes() == before


def test_images_that_changed_in_the_cache_are_found_out(commands: Commands, mc1opt_here) -> None:
    """A bit, by whoever sets the file's time back. The other commands: tests/cli/test_data.py."""
    path = Path(find_data(Path("images")).folder) / "train_images.npy"
    before = path.stat()
    change_a_bit(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    for command in (("data", "--data", "images"), ("doctor", "--data", "images"), GO_ON):
        ended = mc1opt_here(*command)
        assert ended.returncode == 1
        assert "train_images" in ended.stdout + ended.stderr
    assert not Path(STORAGE).exists()


@pytest.fixture
def read_only(commands: Commands) -> Iterator[Path]:
    """The cache, with images not yet verified, that nobody may write to. Root needs a mount for that."""
    images = Path(find_data(Path("images")).folder)
    (images / VERIFIED).unlink()
    folder = images.parent
    if os.getuid() != 0:
        for path in (*folder.rglob("*"), folder):
            path.chmod(0o500 if path.is_dir() else 0o400)
        yield folder
        for path in (folder, *folder.rglob("*")):
            path.chmod(0o700)
        return
    made = subprocess.run(["mount", "--bind", folder, folder], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"nothing can be mounted: {made.stderr.strip()}")
    subprocess.run(["mount", "-o", "remount,bind,ro", folder], check=True)
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.slow
def test_a_cache_that_can_only_be_read_serves_a_search(commands: Commands, read_only: Path) -> None:
    with pytest.raises(OSError, match=r"Read-only|denied"):
        (read_only / "new").touch()
    commands.go_on()
    check(commands.folder, "small", Expected(TRIALS))
    assert not list(read_only.rglob(VERIFIED))


@pytest.mark.slow
def test_images_that_are_not_in_a_cache_that_can_only_be_read_are_an_error(
    commands: Commands, read_only: Path
) -> None:
    path = Path("images/data_batch_1.bin")
    path.write_bytes(path.read_bytes()[:-3073])
    ended = commands.finish(commands.search())
    assert (ended.code, ended.stdout) == (1, "")
    assert f"the data cache {read_only} " in ended.stderr
    assert not Path(STORAGE).exists()
