"""From arrays to tensors; the one door to the test images; and, with --real-data, CIFAR-10 itself."""

import ast
import hashlib
import json
import time
import tracemalloc
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import torch

import mc1opt
from mc1opt.data.cache import damaged_arrays, fetch_lock, open_entry, write_entry
from mc1opt.data.formats import Arrays
from mc1opt.data.images import open_test_images, open_training_images
from mc1opt.data.named import CIFAR10_SHA256
from mc1opt.data.sources import find_data
from mc1opt.data.splits import fold_split, split, stratified_order
from mc1opt.dataset import DataSet
from mc1opt.errors import DataError, StorageError
from mc1opt.spec import Fold
from tests.support.image_sets import make_arrays, write_arrays_folder

ARRAYS = make_arrays()
PACKAGE = Path(mc1opt.__file__).parent


@pytest.fixture
def data() -> DataSet:
    """200 training images, 20 of them for validation, and 50 test images."""
    write_arrays_folder(Path("images"))
    return find_data(Path("images"))


# ---- Training and validation -----------------------------------------------------------------------------


FOLD = Fold(index=1, count=4)


@pytest.mark.parametrize("fold", [None, FOLD], ids=["split", "fold"])
def test_training_and_validation_images_are_those_of_the_split(data: DataSet, fold: Fold | None) -> None:
    opened = open_training_images(data, 100, "cpu", fold)
    every = ARRAYS.train_labels
    train, validation = split(every, 20, 100) if fold is None else fold_split(every, fold, 100)
    for images, labels, chosen in (
        (opened.train_images, opened.train_labels, train),
        (opened.validation_images, opened.validation_labels, validation),
    ):
        np.testing.assert_array_equal(images, ARRAYS.train_images[chosen])
        np.testing.assert_array_equal(labels, every[chosen])
        assert (images.dtype, labels.dtype) == (torch.uint8, torch.int64)
        assert images.is_contiguous(memory_format=torch.channels_last)
    expected = ARRAYS.train_images[train].mean(axis=(0, 2, 3)).round()
    assert opened.mean_colour.tolist() == expected.tolist()
    assert opened.mean_colour.dtype == torch.uint8


def test_chosen_validation_images_of_another_shape_validate() -> None:
    generator = np.random.default_rng(5)
    images = generator.integers(0, 256, (60, 1, 12, 12), dtype=np.uint8)
    labels = (np.arange(60) % 300).astype(np.uint16) * 299 // 59
    names = tuple(f"class {label}" for label in range(300))
    with fetch_lock():
        parts = (images, labels, images[:3], labels[:3])
        entry = write_entry(Arrays(*parts, class_names=names, validation_images=7), "a test")
    opened = open_training_images(entry.data, 50, "cpu")
    order = [images.tolist().index(image) for image in opened.validation_images.tolist()]
    assert sorted(order) == list(range(7))
    assert opened.train_images.shape == (50, 1, 12, 12)
    assert opened.train_labels.max() > 256
    assert opened.mean_colour.shape == (1,)


def test_where_no_image_validates_all_of_them_train(data: DataSet) -> None:
    opened = open_training_images(data.model_copy(update={"validation_images": 0}), 200, "cpu")
    np.testing.assert_array_equal(
        opened.train_images, ARRAYS.train_images[stratified_order(ARRAYS.train_labels)]
    )
    assert opened.validation_images.shape == (0, 3, 32, 32)
    assert opened.validation_labels.shape == (0,)


@pytest.mark.parametrize(
    ("fold", "count", "message"), [(None, 181, "181 .* 20 "), (FOLD, 151, "151 .* 150 .* 1 of 4")]
)
def test_more_training_images_than_validation_leaves_are_refused(
    data: DataSet, fold: Fold | None, count: int, message: str
) -> None:
    with pytest.raises(DataError, match=f"{data.name}: {message}"):
        open_training_images(data, count, "cpu", fold)


def test_training_images_do_not_need_the_test_images(data: DataSet) -> None:
    for path in Path(data.folder).glob("test_*.npy"):
        path.unlink()
    assert len(open_training_images(data, 100, "cpu").train_images) == 100


def test_images_that_are_not_chosen_are_not_read_into_memory() -> None:
    count = 20_000
    folder = Path("sparse")
    folder.mkdir()
    np.lib.format.open_memmap(folder / "train_images.npy", "w+", np.uint8, shape=(count, 3, 32, 32))
    np.save(folder / "train_labels.npy", (np.arange(count) % 10).astype(np.uint8))
    data = DataSet(
        name="sparse", folder=str(folder), sha256="0" * 64, train_images=count, validation_images=100
    )
    assert (folder / "train_images.npy").stat().st_size > 60_000_000
    assert most_memory(data, 100) < 10_000_000


def most_memory(data: DataSet, train_images: int) -> int:
    """Bytes of Python and NumPy while the images are opened; mapped files are none of them."""
    tracemalloc.start()
    try:
        open_training_images(data, train_images, "cpu")
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


@pytest.mark.parametrize("name", ["train_images.npy", "train_labels.npy"])
@pytest.mark.parametrize("damage", [Path.unlink, truncate], ids=["missing", "truncated"])
def test_a_damaged_file_is_named_with_what_to_do(data: DataSet, name: str, damage: object) -> None:
    damage(Path(data.folder) / name)  # type: ignore[operator]
    with pytest.raises(DataError, match=rf"{name} .*mc1opt data"):
        open_training_images(data, 100, "cpu")


# ---- Test images -----------------------------------------------------------------------------------------


def test_the_test_images_are_those_of_the_files(data: DataSet) -> None:
    images, labels = open_test_images(data, "a look", Path("openings.jsonl"), "cpu")
    np.testing.assert_array_equal(images, ARRAYS.test_images)
    np.testing.assert_array_equal(labels, ARRAYS.test_labels)
    assert images.dtype == torch.uint8
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.dtype == torch.int64


def test_each_opening_of_the_test_images_is_recorded(data: DataSet) -> None:
    record = Path("records/openings.jsonl")
    before = datetime.now(UTC)
    for reason in ("retrain of study cnn", "evaluate model x"):
        open_test_images(data, reason, record, "cpu")
    first, second = (json.loads(line) for line in record.read_text().splitlines())
    assert first["reason"] == "retrain of study cnn"
    assert second["reason"] == "evaluate model x"
    assert (first["data"], first["sha256"]) == (data.name, data.sha256)
    times = [datetime.fromisoformat(opening["time"]) for opening in (first, second)]
    assert before <= times[0] <= times[1] <= datetime.now(UTC)


def test_an_opening_is_recorded_before_it_happens(data: DataSet) -> None:
    (Path(data.folder) / "test_images.npy").unlink()
    with pytest.raises(DataError, match=r"test_images\.npy"):
        open_test_images(data, "a look", Path("openings.jsonl"), "cpu")
    assert json.loads(Path("openings.jsonl").read_text())["reason"] == "a look"


def test_without_a_record_the_test_images_stay_shut(data: DataSet) -> None:
    Path("file").touch()
    with pytest.raises(StorageError, match=r"file/openings\.jsonl"):
        open_test_images(data, "a look", Path("file/openings.jsonl"), "cpu")


def test_nothing_else_names_the_files_of_the_test_images() -> None:
    """Outside the data layer no code names a file of arrays or a function that reads them all; within it,
    what names the test images is the cache's list of files and the one door."""
    reading = {"ARRAY_FILES", "named_arrays", "read_files", "read_binary", "read_png", "read_torchvision"}
    reading |= {"read_idx", "idx_array", "read_cifar100"}
    doors = set()
    for path in sorted(PACKAGE.rglob("*.py")):
        tree = ast.parse(path.read_text())
        inside = path.parent.name == "data"
        for function in [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)]:
            if any("test_images.npy" in text for text in strings(function)):
                doors.add((path.name, function.name))
        if not inside and path.name != "script_template.py":  # a script, which runs without mc1opt
            assert not [text for text in strings(tree) if ".npy" in text], path
            assert not reading & {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}, path
            assert not reading & imported(tree), path
    assert doors == {("images.py", "open_test_images"), ("examine.py", "examined_test_images")}
    used = {path.name for path in PACKAGE.rglob("*.py") if "examined_test_images" in path.read_text()}
    assert used == {"examine.py"}


def strings(tree: ast.AST) -> list[str]:
    """All string constants in it but docstrings."""
    nodes = list(ast.walk(tree))
    texts = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}
    constants = [node for node in nodes if isinstance(node, ast.Constant) and id(node) not in texts]
    return [node.value for node in constants if isinstance(node.value, str)]


def imported(tree: ast.AST) -> set[str]:
    """The names that its imports take from modules."""
    found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {alias.name for node in found for alias in node.names}


# ---- CIFAR-10 itself -------------------------------------------------------------------------------------


@pytest.mark.real_data
def test_the_real_images_are_whole_and_open_fast_and_mapped() -> None:
    find_data()
    times = []
    for _ in range(3):
        start = time.perf_counter()
        data = find_data()
        opened = open_training_images(data, 1000, "cpu")
        times.append(time.perf_counter() - start)
    assert min(times) < 0.6  # seconds: threefold what it may take
    assert opened.train_images.shape == (1000, 3, 32, 32)
    assert opened.validation_images.shape == (5000, 3, 32, 32)
    assert opened.validation_labels.bincount().tolist() == [500] * 10
    assert (data.name, data.train_images, data.validation_images) == ("cifar10", 50_000, 5_000)
    entry = open_entry("cifar10")
    assert entry.sha256 == CIFAR10_SHA256
    assert damaged_arrays(entry) == []
    assert most_memory(data, 1000) < 60_000_000  # 18 MB are chosen, of 154
    order = stratified_order(np.load(Path(data.folder) / "train_labels.npy"))
    known = "a77aef2288d1e9dbd4042b90538d8609fbbe53c24d23bc4b671a3122666a51af"
    assert hashlib.sha256(order.astype("<i8").tobytes()).hexdigest() == known
