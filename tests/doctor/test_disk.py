"""The checks of disk, SQLite and images, each well and unwell; nothing changes."""

import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from mc1opt.data.sources import find_data
from mc1opt.doctor.diagnosis import Check
from mc1opt.doctor.disk import (
    LEAST_DISK,
    LITTLE_DISK,
    check_data,
    check_disk,
    check_sqlite,
    file_system,
)
from tests.doctor.test_database import STORAGE, nothing_changes
from tests.support.image_sets import write_binary_folder

# ---- Disk ------------------------------------------------------------------------------------------------


def test_the_disk_is_that_of_the_database_also_before_it_exists() -> None:
    with nothing_changes():
        check = check_disk("new/folder/s.db", free_bytes=10 * LITTLE_DISK)
    assert (check.status, check.what_to_do) == ("ok", "")
    assert str(Path("new/folder").absolute()) in check.found


@pytest.mark.parametrize(("free", "status"), [(LITTLE_DISK - 1, "warning"), (LEAST_DISK - 1, "problem")])
def test_little_disk_is_said(free: int, status: str) -> None:
    assert check_disk(STORAGE, free_bytes=free).status == status


def test_a_file_in_the_place_of_the_folder_is_a_problem() -> None:
    Path("file").touch()
    assert check_disk("file/s.db").status == "problem"


def test_a_folder_that_cannot_be_written_is_a_problem() -> None:
    Path("folder").mkdir(mode=0o500)
    if os.access("folder", os.W_OK):
        pytest.skip("this user may write everywhere")
    assert "cannot be written" in check_disk("folder/s.db").found


# ---- SQLite ----------------------------------------------------------------------------------------------

MOUNTS = [("/", "ext4"), ("/net", "nfs4"), ("/net/fast", "tmpfs"), ("/net/fast", "xfs")]


@pytest.mark.parametrize(
    ("path", "kind"),
    [("/tmp/x", "ext4"), ("/net/folder", "nfs4"), ("/network", "ext4"), ("/net/fast/x", "xfs")],
)
def test_the_file_system_is_that_of_the_nearest_mount(
    monkeypatch: pytest.MonkeyPatch, path: str, kind: str
) -> None:
    mounts = [SimpleNamespace(mountpoint=mountpoint, fstype=fstype) for mountpoint, fstype in MOUNTS]
    monkeypatch.setattr(psutil, "disk_partitions", lambda all: mounts)
    assert file_system(Path(path)) == kind
    check = check_sqlite(f"{path}/s.db")
    assert check.status == ("warning" if kind == "nfs4" else "ok")
    assert kind in check.found


def test_the_file_system_of_this_machine_is_known() -> None:
    assert file_system(Path("/proc/self")) == "proc"
    assert check_sqlite(STORAGE).status in ("ok", "warning")


# ---- Images ----------------------------------------------------------------------------------------------


def images(data: Path | None = None) -> Check:
    with nothing_changes():
        return check_data(data)


def test_images_that_are_not_there_yet_are_not_fetched() -> None:
    check = images()
    assert check.status == "warning"
    assert "mc1opt data" in check.what_to_do


def test_a_cache_that_cannot_be_made_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    Path("file").touch()
    monkeypatch.setenv("MC1OPT_DATA", "file/cache")
    check = images()
    assert check.status == "problem"
    assert "MC1OPT_DATA" in check.what_to_do


def test_too_little_disk_for_the_images_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    assert images().status == "problem"


def test_given_images_are_looked_at_and_not_put_into_the_cache(tmp_path: Path) -> None:
    write_binary_folder(Path("images"))
    check = images(Path("images"))
    assert check.status == "ok"
    assert "200 training and 50 test images" in check.found
    assert not (tmp_path / "cache").exists()


def test_given_files_that_are_no_images_are_a_problem() -> None:
    check = images(Path("nowhere"))
    assert check.status == "problem"
    assert "nowhere" in check.found


def test_cached_images_are_verified(tmp_path: Path) -> None:
    write_binary_folder(Path("images"))
    folder = Path(find_data(Path("images")).folder)
    assert images(Path("images")).status == "ok"
    content = bytearray((folder / "train_labels.npy").read_bytes())
    content[-1] ^= 1
    (folder / "train_labels.npy").write_bytes(content)
    check = images(Path("images"))
    assert check.status == "problem"
    assert "train_labels" in check.found
    assert check.what_to_do.startswith(f"rm -r {folder}\n")
