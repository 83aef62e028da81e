"""The cache: what may enter it, that it is whole or not there, and that damage is noticed."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mc1opt.data import cache
from mc1opt.data.cache import (
    LEAST_TRAIN_IMAGES,
    VERIFIED,
    CacheEntry,
    cache_folder,
    check_arrays,
    damaged_arrays,
    data_set,
    fetch_lock,
    named_arrays,
    open_entry,
    verify,
    write_entry,
)
from mc1opt.data.formats import ARRAY_FILES, Arrays
from mc1opt.data.named import CIFAR10, CIFAR10_COUNTS, CIFAR10_SHA256, NAMED
from mc1opt.dataset import CIFAR10_CLASS_NAMES, DataShape
from mc1opt.errors import DataError
from tests.support.image_sets import change_a_bit, change_without_a_trace, make_arrays
from tests.workers.test_process import ROOT

ARRAYS = make_arrays()


def write(arrays: Arrays = ARRAYS):
    with fetch_lock():
        return write_entry(arrays, "a test")


def names_in_cache() -> set[str]:
    return {path.name for path in cache_folder().iterdir()}


# ---- Where -----------------------------------------------------------------------------------------------


def test_an_environment_variable_names_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MC1OPT_DATA", "~/images")
    monkeypatch.setenv("HOME", str(Path.cwd()))
    assert cache_folder() == Path.cwd().resolve() / "images"


def test_without_it_the_cache_is_the_platforms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MC1OPT_DATA")
    monkeypatch.setenv("HOME", str(Path.cwd()))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder().name == "mc1opt"
    assert cache_folder().is_relative_to(Path.cwd())


# ---- What may enter --------------------------------------------------------------------------------------


def test_as_many_images_as_cifar10_has_must_be_cifar10() -> None:
    zeros = [np.zeros((count, 3, 32, 32), np.uint8) for count in CIFAR10_COUNTS]
    labels = [(np.arange(count) % 10).astype(np.uint8) for count in CIFAR10_COUNTS]
    with pytest.raises(DataError, match=r"train_images, .*, test_labels .*9d5c2eddadb0"):
        check_arrays(Arrays(zeros[0], labels[0], zeros[1], labels[1]), "files")


@pytest.mark.parametrize("must_be", [CIFAR10, None])
def test_its_images_with_other_labels_are_data_of_ones_own_with_its_classes(
    monkeypatch: pytest.MonkeyPatch, must_be: str | None
) -> None:
    arrays = make_arrays(train_images=40)
    hashes = check_arrays(arrays, "files")
    monkeypatch.setattr(cache, "CIFAR10_COUNTS", (40, len(arrays.test_labels)))
    for name, digest in (hashes | {"train_labels": "0" * 64}).items():
        monkeypatch.setitem(CIFAR10_SHA256, name, digest)
    if must_be:
        with pytest.raises(DataError, match="train_labels "):
            check_arrays(arrays, "files", must_be)
    else:
        assert check_arrays(arrays, "files") == hashes
        data = data_set(arrays, hashes)
        assert data.name.startswith("own-")
        assert data.class_names == CIFAR10_CLASS_NAMES


def test_other_images_are_refused_where_it_must_be_cifar10() -> None:
    with pytest.raises(DataError, match="CIFAR-10"):
        check_arrays(ARRAYS, "files", CIFAR10)


def test_where_no_hash_is_known_counts_and_shape_must_be_those_of_the_named_set() -> None:
    assert NAMED["kmnist"].sha256 is None
    with pytest.raises(DataError, match=r"files: \(200, 50\) .* Kuzushiji-MNIST"):
        check_arrays(ARRAYS, "files", "kmnist")


IMAGES, LABELS = ARRAYS.train_images, ARRAYS.train_labels


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": IMAGES.astype(np.float32)}, "float32"),
        ({"train_images": IMAGES.transpose(0, 2, 3, 1)}, r"\(200, 32, 32, 3\)"),
        ({"train_images": IMAGES[:-1]}, r"\(199, 3, 32, 32\).*\(200,\)"),
        ({"train_images": IMAGES.reshape(200, -1)}, "uint8"),
        ({"train_labels": LABELS.astype(np.int64)}, "int64"),
        ({"train_labels": LABELS[:, None]}, r"uint8 \(200, 1\)"),
        ({"train_labels": LABELS[0]}, r"uint8 \(\)"),
        ({"train_labels": LABELS.astype(np.uint16)}, "uint16"),
        ({"train_labels": LABELS.astype(np.uint16) + 300}, "test images .* labels uint8"),
        (
            {"train_labels": LABELS.astype(np.uint16) + 1000, "test_labels": LABELS[:50] + np.uint16(1000)},
            "1010",
        ),
        ({"train_labels": LABELS * 0}, "a test label is 9"),
        ({"train_labels": LABELS * 0, "test_labels": LABELS[:50] * 0}, "1 classes; 2 to 1,000"),
        ({"train_images": IMAGES[..., :31]}, r"\(200, 3, 32, 31\)"),
        ({"train_images": IMAGES[..., :7, :7], "test_images": ARRAYS.test_images[..., :7, :7]}, "8 to 256"),
        ({"test_images": ARRAYS.test_images[:, :1]}, r"test .*\(50, 1, 32, 32\)"),
        ({"test_labels": ARRAYS.test_labels + 1}, "test .* 10; .* 0 to 9"),
        ({"class_names": tuple("abcdefghi")}, "training label is 9; .* 0 to 8"),
        ({"class_names": tuple("abcdefghaa")}, "two classes"),
        ({"test_images": ARRAYS.test_images[:0], "test_labels": ARRAYS.test_labels[:0]}, "0 test images"),
        (
            {"train_images": IMAGES[:19], "train_labels": LABELS[:19]},
            " 19 .* 50 .* 20 and 1 ",
        ),
    ],
)
def test_arrays_of_another_kind_are_refused_with_what_they_are(
    changes: dict[str, object], message: str
) -> None:
    with pytest.raises(DataError, match=f"files.*{message}"):
        check_arrays(dataclasses.replace(ARRAYS, **changes), "files")


def test_the_least_number_of_images_is_enough() -> None:
    entry = write(make_arrays(train_images=LEAST_TRAIN_IMAGES, test_images=1))
    assert (entry.data.train_images, entry.data.validation_images) == (20, 2)


# ---- Writing and opening ---------------------------------------------------------------------------------


def test_what_is_written_opens_and_is_the_same() -> None:
    entry = write()
    assert open_entry(entry.folder.name) == entry
    assert open_entry("cifar10") is None
    assert entry.counts == (200, 50)
    assert entry.data.name == entry.folder.name == f"own-{entry.data.sha256[:12]}"
    assert entry.data.folder == str(entry.folder)
    assert (entry.data.train_images, entry.data.validation_images) == (200, 20)
    assert entry.source == "a test"
    for name, array in named_arrays(ARRAYS):
        np.testing.assert_array_equal(np.load(entry.folder / name), array)
    assert damaged_arrays(entry) == []
    assert names_in_cache() == {entry.folder.name, ".lock"}
    assert {path.name for path in entry.folder.iterdir()} == {*ARRAY_FILES, "source.json"}


def test_arrays_that_are_not_contiguous_are_stored_all_the_same() -> None:
    turned = np.ascontiguousarray(ARRAYS.train_images.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    assert write(dataclasses.replace(ARRAYS, train_images=turned)).sha256 == write().sha256


def test_cifar10_is_called_so() -> None:
    data = data_set(ARRAYS, dict(CIFAR10_SHA256))
    assert (data.name, data.sha256) == ("cifar10", CIFAR10_SHA256["train_images"])
    assert data.class_names == CIFAR10_CLASS_NAMES


def shaped(size: int, channels: int, classes: int, **more: object) -> Arrays:
    """Images of another kind; each class has some."""
    generator = np.random.default_rng(3)
    kind = np.uint8 if classes <= 256 else np.uint16
    parts = []
    for count in (3 * classes, classes):
        images = generator.integers(0, 256, (count, channels, size, size), dtype=np.uint8)
        parts += [images, (np.arange(count) % classes).astype(kind)]
    return Arrays(*parts, **more)


@pytest.mark.parametrize(("size", "channels", "classes"), [(28, 1, 10), (8, 3, 300), (256, 3, 7)])
def test_an_entry_says_what_its_images_are(size: int, channels: int, classes: int) -> None:
    entry = write(shaped(size, channels, classes))
    assert open_entry(entry.folder.name) == entry
    assert entry.data.shape == DataShape(channels, size, classes)
    assert entry.data.class_names == tuple(str(label) for label in range(classes))
    assert damaged_arrays(entry) == []


def test_class_names_that_are_said_are_kept_and_make_other_data() -> None:
    names = ("Käse", "Brot", "c", "d", "e", "f", "g")
    unnamed, named = write(shaped(8, 3, 7)), write(shaped(8, 3, 7, class_names=names))
    assert open_entry(named.folder.name).data.class_names == names
    assert named.sha256 == unnamed.sha256
    assert named.data.name != unnamed.data.name
    assert write(shaped(8, 3, 7, class_names=unnamed.data.class_names)).data == unnamed.data


def test_validation_images_that_somebody_chose_are_kept_and_make_other_data() -> None:
    entry = write(shaped(8, 3, 7, validation_images=2))
    assert (entry.data.validation_images, entry.data.validation_first) == (2, True)
    assert open_entry(entry.folder.name) == entry
    assert entry.data.name != write(shaped(8, 3, 7)).data.name


def test_a_name_that_the_files_checksums_have_shown_is_kept() -> None:
    entry = write(shaped(8, 3, 7, name="cifar100", class_names=tuple("abcdefg")))
    assert entry.data.name == entry.folder.name == "cifar100"
    assert open_entry("cifar100") == entry


def test_own_images_of_cifar10s_shape_have_the_name_and_hash_that_they_always_had() -> None:
    """Written down before other shapes were known; their classes are not CIFAR-10's, and were never said."""
    data = write().data
    assert data.name == "own-106d2aac3d49"
    assert data.class_names == tuple("0123456789")


def test_an_entry_that_was_written_before_is_as_it_was() -> None:
    entry = write()
    path = entry.folder / "source.json"
    known = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in known.items() if key != "data"}))
    before = open_entry(entry.folder.name).data
    assert before == entry.data.model_copy(update={"class_names": CIFAR10_CLASS_NAMES})
    assert write_entry(dataclasses.replace(ARRAYS), "again").data.name == before.name


@pytest.mark.parametrize("part", ["train_images", "train_labels", "test_images", "test_labels"])
def test_a_change_anywhere_makes_other_data(part: str) -> None:
    changed = dataclasses.replace(ARRAYS, **{part: getattr(ARRAYS, part)[::-1]})
    assert write(changed).data.name != write().data.name
    assert write(changed).data.sha256 != write().data.sha256


@pytest.mark.parametrize("name", [*ARRAY_FILES, "source.json"])
def test_a_truncated_or_incomplete_entry_is_not_opened_and_is_written_anew(name: str) -> None:
    entry = write()
    path = entry.folder / name
    path.write_bytes(path.read_bytes()[:-1])
    assert open_entry(entry.folder.name) is None
    path.unlink()
    assert open_entry(entry.folder.name) is None
    again = write()
    assert open_entry(entry.folder.name) == again
    assert damaged_arrays(again) == []


def test_a_damaged_description_is_not_opened() -> None:
    entry = write()
    path = entry.folder / "source.json"
    known = json.loads(path.read_text())
    lacking = [
        {key: value for key, value in known.items() if key != field} for field in known.keys() - {"data"}
    ]
    wrong = [{**known, "data": data} for data in (3, {"size": 7}, {"folder": "x"}, {"what": 1})]
    for text in ("", "null", "[]", '{"sizes": 3}', "\ufffe", *map(json.dumps, [*lacking, *wrong])):
        path.write_text(text)
        assert open_entry(entry.folder.name) is None, text


@pytest.mark.parametrize("name", ARRAY_FILES)
def test_changed_bytes_are_noticed_by_their_hash(name: str) -> None:
    entry = write()
    change_a_bit(entry.folder / name)
    assert open_entry(entry.folder.name) == entry  # sizes alone do not tell
    assert damaged_arrays(entry) == [name.removesuffix(".npy")]


def test_arrays_that_cannot_be_read_are_damaged() -> None:
    entry = write()
    (entry.folder / "test_labels.npy").write_bytes(b"")
    (entry.folder / "train_labels.npy").unlink()
    assert damaged_arrays(entry) == ["train_labels", "test_labels"]


# ---- Verified once a start of the machine ----------------------------------------------------------------


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The entries whose arrays were hashed, in order."""
    found = []

    def noted(entry: CacheEntry) -> list[str]:
        found.append(entry.folder.name)
        return damaged_arrays(entry)

    monkeypatch.setattr(cache, "damaged_arrays", noted)
    monkeypatch.setattr(cache, "boot_id", lambda: "this start")
    return found


def change_in_place(path: Path) -> None:
    change_a_bit(path)


def change_and_set_the_time_back(path: Path) -> None:
    before = path.stat()
    change_a_bit(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert path.stat().st_mtime_ns == before.st_mtime_ns


def change_below_a_map(path: Path) -> None:
    before = path.stat().st_ctime_ns
    while path.stat().st_ctime_ns == before:
        mapped = np.load(path, mmap_mode="r+")
        mapped.flat[0] = ARRAYS_BY_FILE[path.name].flat[0] ^ 1
        mapped.flush()


def replace_by_a_copy_with_its_times(path: Path) -> None:
    copy = path.with_name("copy")
    shutil.copy2(path, copy)
    before = path.stat()
    change_a_bit(copy)
    os.utime(copy, ns=(before.st_atime_ns, before.st_mtime_ns))
    copy.replace(path)


def lead_elsewhere(path: Path) -> None:
    other = Path("other.npy").absolute()
    shutil.copy(path, other)
    change_a_bit(other)
    path.unlink()
    path.symlink_to(other)


ARRAYS_BY_FILE = dict(named_arrays(ARRAYS))


@pytest.mark.parametrize("name", ARRAY_FILES)
@pytest.mark.parametrize(
    "change",
    [
        change_in_place,
        change_and_set_the_time_back,
        change_below_a_map,
        replace_by_a_copy_with_its_times,
        lead_elsewhere,
        Path.unlink,
    ],
)
def test_a_file_that_has_changed_since_it_was_verified_is_found_out(
    name: str, change: Callable[[Path], None]
) -> None:
    entry = write()
    verify(entry)
    change(entry.folder / name)
    for _ in range(2):
        with pytest.raises(DataError, match=rf"{name[:-4]} .*mc1opt data --data PATH"):
            verify(entry)


def test_hashes_are_computed_once_a_start_of_the_machine(
    hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = write()
    for _ in range(3):
        verify(entry)
    assert hashed == [entry.folder.name]
    monkeypatch.setattr(cache, "boot_id", lambda: "the next start")
    for _ in range(3):
        verify(entry)
    assert hashed == [entry.folder.name] * 2
    verify(entry, anew=True)
    assert hashed == [entry.folder.name] * 3


@pytest.mark.parametrize("name", ARRAY_FILES)
def test_a_file_that_was_touched_or_copied_is_verified_again_and_is_good(
    hashed: list[str], name: str
) -> None:
    entry = write()
    verify(entry)
    path = entry.folder / name
    os.utime(path, ns=(1, 1))
    verify(entry)
    shutil.copy2(path, "copy")
    Path("copy").replace(path)
    for _ in range(2):
        verify(entry)
    assert len(hashed) == 3


def test_a_change_that_leaves_no_trace_is_found_at_the_next_start_of_the_machine(
    hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = write()
    path = entry.folder / "train_images.npy"
    change_without_a_trace(path, path.read_bytes()[:-1] + b"\0", monkeypatch)
    verify(entry)
    monkeypatch.setattr(cache, "boot_id", lambda: "the next start")
    with pytest.raises(DataError, match="train_images"):
        verify(entry)
    assert len(hashed) == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"null", b"[]", b"{}", b'{"boot": "this st', b"\xff\xfe", b"[" * 9999],
    ids=lambda content: repr(content[:20]),
)
def test_a_damaged_record_is_as_good_as_none(hashed: list[str], content: bytes) -> None:
    entry = write()
    verify(entry)
    record = entry.folder / VERIFIED
    whole = record.read_bytes()
    record.write_bytes(content)
    for _ in range(2):
        verify(entry)
    assert len(hashed) == 2
    assert record.read_bytes() == whole


def test_a_record_of_other_hashes_is_none(hashed: list[str]) -> None:
    """Somebody has changed what the images must be, and not the images."""
    entry = write()
    verify(entry)
    with pytest.raises(DataError, match="test_labels"):
        verify(dataclasses.replace(entry, sha256={**entry.sha256, "test_labels": "0" * 64}))


@pytest.mark.parametrize("missing", ["record", "boot id"])
def test_where_nothing_can_be_remembered_they_are_computed_each_time(
    hashed: list[str], monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    """A folder in the record's place stands for a read-only cache, which would not stop root."""
    entry = write()
    if missing == "record":
        (entry.folder / VERIFIED).mkdir()
    else:
        monkeypatch.setattr(cache, "boot_id", lambda: None)
    for _ in range(3):
        verify(entry)
    assert len(hashed) == 3
    change_a_bit(entry.folder / "test_images.npy")
    with pytest.raises(DataError, match="test_images"):
        verify(entry)


def test_processes_that_verify_at_once_leave_a_record_that_holds(hashed: list[str]) -> None:
    entry = write()
    code = (
        "import sys\n"
        "from mc1opt.data import cache\n"
        "cache.boot_id = lambda: 'this start'\n"
        "entry = cache.open_entry(sys.argv[1])\n"
        "sys.stdin.read()\n"
        "for _ in range(10):\n"
        "    cache.verify(entry, anew=True)\n"
    )
    command = [sys.executable, "-c", code, entry.folder.name]
    processes = [subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        process.stdin.close()
    assert [process.wait() for process in processes] == [0] * 3
    verify(entry)
    assert hashed == []


# ---- Locks, leftovers, a cache that cannot be written ----------------------------------------------------


def test_folders_that_killed_processes_left_are_removed() -> None:
    code = (
        "import os\n"
        "from mc1opt.data.cache import fetch_lock, temporary_folder\n"
        "lock, folder = fetch_lock(), temporary_folder()\n"
        "lock.__enter__()\n"
        "(folder.__enter__() / 'file').touch()\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == -9
    assert len(names_in_cache()) == 2
    entry = write()
    assert names_in_cache() == {entry.folder.name, ".lock"}
