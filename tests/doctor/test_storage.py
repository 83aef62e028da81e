"""The checks of disk, study database, running trials and images, each well and unwell; nothing changes."""

import os
import shutil
from pathlib import Path

import pytest

from mc1opt.data.sources import find_data
from mc1opt.doctor import storage as doctor_storage
from mc1opt.doctor.diagnosis import Check
from mc1opt.doctor.storage import (
    LEAST_DISK,
    LITTLE_DISK,
    check_data,
    check_disk,
    check_sqlite,
    file_system,
    is_wal_mended,
)
from tests.doctor.test_database import (
    STORAGE,
    _nothing_is_left_elsewhere,
    nothing_changes,
    study,
    template,
    use_wal,
)
from tests.support.image_sets import write_binary_folder

__all__ = ["_nothing_is_left_elsewhere", "study", "template"]


# ---- Disk ------------------------------------------------------------------------------------------------


def test_the_disk_is_that_of_the_database_also_before_it_exists() -> None:
    with nothing_changes():
        check = check_disk("new/folder/s.db", free_bytes=10 * LITTLE_DISK)
    assert (check.status, check.what_to_do) == ("ok", "")
    assert check.found.endswith(f"free at {Path('new/folder').absolute()}")
    assert check_disk("new/s.db").status in ("ok", "warning", "problem")


@pytest.mark.parametrize(("free", "status"), [(LITTLE_DISK - 1, "warning"), (LEAST_DISK - 1, "problem")])
def test_little_disk_is_said(free: int, status: str) -> None:
    check = check_disk(STORAGE, free_bytes=free)
    assert check.status == status
    assert "Free some" in check.what_to_do


def test_a_file_in_the_place_of_the_folder_is_a_problem() -> None:
    Path("file").touch()
    assert check_disk("file/s.db").status == "problem"


def test_a_folder_that_cannot_be_written_is_a_problem() -> None:
    Path("folder").mkdir(mode=0o500)
    if os.access("folder", os.W_OK):
        pytest.skip("this user may write everywhere")
    assert "cannot be written" in check_disk("folder/s.db").found


# ---- SQLite ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("version", "mended"),
    [
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 45, 9), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), True),
        ((4, 0, 0), True),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, tuple) else "",
)
def test_the_versions_without_the_wal_reset_bug_are_known(version: tuple[int, ...], mended: bool) -> None:
    assert is_wal_mended(version) == mended
    check = check_sqlite(STORAGE, version)
    assert ("would be safe" in check.found) == mended
    assert ("would not be safe" in check.found) != mended


MOUNTS = """\
/dev/vda / ext4 rw 0 0
server:/export /mnt/net nfs4 rw 0 0
tmpfs /mnt/net/fast tmpfs rw 0 0
//box/share /mnt/a\\040b cifs rw 0 0
overlay /mnt/net/fast ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/tmp", "ext4"),
        ("/mnt/net", "nfs4"),
        ("/mnt/net/folder", "nfs4"),
        ("/mnt/network", "ext4"),
        ("/mnt/net/fast/x", "ext4"),
        ("/mnt/a b/x", "cifs"),
    ],
)
def test_the_file_system_is_that_of_the_nearest_mount(tmp_path: Path, path: str, kind: str) -> None:
    (tmp_path / "mounts").write_text(MOUNTS)
    assert file_system(Path(path), tmp_path / "mounts") == kind
    assert file_system(Path(path), tmp_path / "missing") is None


@pytest.mark.parametrize("kind", ["nfs4", "cifs", "fuse.sshfs", "9p"])
def test_a_file_system_of_the_network_is_a_warning(monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(doctor_storage, "file_system", lambda _path: kind)
    check = check_sqlite(STORAGE, (3, 51, 3))
    assert (check.status, kind in check.found) == ("warning", True)
    assert "PostgreSQL" in check.what_to_do


def test_a_write_ahead_log_that_is_not_safe_is_a_problem(
    study: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    use_wal()
    with nothing_changes():
        assert check_sqlite(STORAGE, (3, 51, 3)).status == "ok"
        check = check_sqlite(STORAGE, (3, 40, 1))
    assert check.status == "problem"
    assert 'sqlite3 s.db "PRAGMA journal_mode = DELETE"' in check.what_to_do
    monkeypatch.setattr(doctor_storage, "file_system", lambda _path: "nfs")
    assert check_sqlite(STORAGE, (3, 51, 3)).status == "problem"


# ---- Images ----------------------------------------------------------------------------------------------


def images(data: Path | None = None) -> Check:
    with nothing_changes():
        return check_data(data)


def test_images_that_are_not_there_yet_are_not_fetched() -> None:
    check = images()
    assert check.status == "warning"
    assert check.found.startswith("CIFAR-10 is not yet in the cache")
    assert "mc1opt data" in check.what_to_do


def test_images_that_were_fetched_in_part_are_said_to_be_so(tmp_path: Path) -> None:
    (tmp_path / "cache/.fetching-abc").mkdir(parents=True)
    assert images().found.startswith("CIFAR-10 is only in part in the cache")


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


def test_given_images_are_looked_at_and_not_put_into_the_cache() -> None:
    write_binary_folder(Path("images"))
    check = images(Path("images"))
    assert check.status == "ok"
    assert "200 training and 50 test images, not in the cache yet" in check.found


def test_given_files_that_are_no_images_are_a_problem() -> None:
    check = images(Path("nowhere"))
    assert (check.status, check.found) == ("problem", "nowhere cannot be used")
    assert "does not exist" in check.what_to_do


def test_cached_images_are_verified(tmp_path: Path) -> None:
    write_binary_folder(Path("images"))
    folder = Path(find_data(Path("images")).folder)
    assert images(Path("images")).found.endswith("all hashes verified")
    content = bytearray((folder / "train_labels.npy").read_bytes())
    content[-1] ^= 1
    (folder / "train_labels.npy").write_bytes(content)
    check = images(Path("images"))
    assert check.status == "problem"
    assert check.found.endswith("has changed since it was fetched: train_labels")
    assert check.what_to_do.startswith(f"rm -r {folder}\n")
