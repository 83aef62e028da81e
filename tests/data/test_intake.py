"""Folders of image files go into the cache, are found there again, and are noticed when they change."""

import io
import json
import os
import time
from pathlib import Path

import numpy as np
import pytest

from mc1opt.data import intake
from mc1opt.data.cache import cache_folder
from mc1opt.data.image_files import read_image
from mc1opt.data.intake import FOLDERS, FolderRecord, suggested_size, take_in
from mc1opt.data.sources import find_data, look_at_files
from mc1opt.dataset import DataSet, DataShape
from mc1opt.errors import DataError, UsageError
from tests.support.image_sets import make_arrays, write_arrays
from tests.support.photographs import write_classes, write_images

HERE = Path("images")


def opened(data: DataSet, part: str) -> np.ndarray:
    return np.load(Path(data.folder) / f"{part}.npy")


def record(**options: object) -> FolderRecord:
    return take_in(HERE, None, None, None, **options)[1]


@pytest.fixture
def parts() -> None:
    """Three classes of unlike size, with parts for training, validation and test."""
    write_classes(HERE / "train", 20, 10, 5)
    write_classes(HERE / "val", 3, 2, 1, first=100, ending="jpg")
    write_classes(HERE / "test", 4, 3, 2, first=110, ending="bmp")


def assert_decoded(data: DataSet, size: int, channels: int = 3) -> None:
    """The arrays are what reading each file gives, in the order of the record."""
    kept = record()
    for part, files in (("train", kept.train_files), ("test", kept.test_files)):
        expected = [read_image(HERE / path, channels, size) for path in files]
        np.testing.assert_array_equal(opened(data, f"{part}_images"), expected)
        labels = [data.class_names.index(path.split("/")[-2]) for path in files]
        assert opened(data, f"{part}_labels").tolist() == labels


# ---- What goes into the cache ----------------------------------------------------------------------------


@pytest.mark.usefixtures("parts")
def test_a_folder_with_parts_becomes_arrays_whose_first_images_validate() -> None:
    data = find_data(HERE)
    assert data.name.startswith("own-")
    assert data.class_names == ("class 0", "class 1", "class 2")
    assert (data.train_images, data.validation_images, data.validation_first) == (41, 6, True)
    assert data.shape == DataShape(3, 40, 3)
    assert record().train_files[5] == "val/class 2/0.jpg"
    assert_decoded(data, 40)


def test_a_folder_of_classes_alone_has_a_test_part_and_one_that_validates() -> None:
    write_classes(HERE, 30, 10)
    data = find_data(HERE)
    assert (data.train_images, data.validation_images, data.validation_first) == (32, 7, True)
    assert len(record().test_files) == 8
    assert_decoded(data, 40)


@pytest.mark.parametrize(("modes", "channels"), [(("L", "LA"), 1), (("L", "RGB"), 3)])
def test_images_have_one_channel_only_if_all_are_grey(modes: tuple[str, ...], channels: int) -> None:
    for label, mode in enumerate(modes):
        write_images(HERE / f"class {label}", 20, mode=mode)
    data = find_data(HERE)
    assert data.channels == channels
    assert_decoded(data, 40, channels)


@pytest.mark.parametrize(
    ("sides", "size"),
    [([40], 40), ([31], 28), ([10], 16), ([300], 64), ([20, 24, 100], 24), ([20, 20, 200, 200, 200], 64)],
)
def test_the_size_follows_from_the_median_of_the_shorter_sides(sides: list[int], size: int) -> None:
    for side in sides:
        write_images(HERE / str(side) / str(time.monotonic_ns()), 1, size=(side + 9, side))
    paths = [*HERE.rglob("*.png")]
    assert suggested_size(paths) == size
    Path("none.png").touch()
    assert suggested_size([Path("none.png")]) == 64


def test_the_size_that_is_given_wins_and_makes_other_data() -> None:
    write_classes(HERE, 20, 20)
    data = find_data(HERE, image_size=8)
    assert data.size == 8
    assert data.name != find_data(HERE).name
    for size in (7, 257):
        with pytest.raises(UsageError, match=f"--image-size {size} .* 8 to 256"):
            find_data(HERE, image_size=size)


def test_a_size_is_for_folders_of_image_files_alone() -> None:
    write_arrays(Path("arrays"), make_arrays())
    for path in (Path("arrays"), Path("mnist"), None):
        with pytest.raises(UsageError, match="--image-size is for folders"):
            find_data(path, image_size=32)


def test_hundreds_of_classes_of_few_images() -> None:
    for label in range(300):
        write_images(HERE / f"class {label:03}", 3, label, size=(9, 9))
    data = find_data(HERE, image_size=8)
    assert (data.classes, data.train_images) == (300, 600)
    assert opened(data, "train_labels").dtype == np.uint16
    assert np.bincount(opened(data, "test_labels")).tolist() == [1] * 300


def test_too_few_images_are_refused() -> None:
    write_classes(HERE, 5, 5)
    with pytest.raises(DataError, match=r"images has 8 training and 2 test images; at least 20"):
        find_data(HERE)


# ---- Files that cannot be read ---------------------------------------------------------------------------


def damage(*names: str) -> None:
    for name in names:
        (HERE / name).write_bytes(b"damaged")


@pytest.mark.usefixtures("parts")
def test_unreadable_files_are_named_and_left_out() -> None:
    damage("val/class 0/1.jpg", "train/class 0/7.png", "train/class 1/0.png", "test/class 2/1.bmp")
    output = io.StringIO()
    data = find_data(HERE, output=output)
    assert (data.train_images, data.validation_images) == (38, 5)
    assert_decoded(data, 40)
    lines = output.getvalue().splitlines()
    assert lines[1] == "Left out, because they cannot be read: 4"
    assert "val/class 0/1.jpg is not a readable PNG" in lines[2]
    assert [line.split(" is not")[0][-5:] for line in record().unreadable] == [
        "1.jpg",
        "7.png",
        "0.png",
        "1.bmp",
    ]


def test_more_unreadable_files_than_allowed_are_an_error_however_often_one_asks() -> None:
    write_classes(HERE, 30, 30)
    damage(*(f"class 0/{number}.png" for number in range(11)))
    with pytest.raises(DataError, match=r"(?s)^11 of 60 images .*; 10 may be:.*1 more.*--max-unreadable 11"):
        find_data(HERE)
    assert not list(cache_folder().glob("own-*"))
    data = find_data(HERE, max_unreadable=11)
    assert find_data(HERE, max_unreadable=11) == data
    with pytest.raises(DataError, match="11 of 60"):
        find_data(HERE)


def test_a_class_without_a_readable_image_is_named() -> None:
    write_classes(HERE, 30, 3)
    damage(*(f"class 1/{number}.png" for number in range(3)))
    with pytest.raises(DataError, match="class 1 has no training image"):
        find_data(HERE)


# ---- Found again -----------------------------------------------------------------------------------------


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images were decoded each time."""
    found = []
    decode_images = intake.decode_images

    def noted(paths, *rest):
        found.append(len(paths))
        return decode_images(paths, *rest)

    monkeypatch.setattr(intake, "decode_images", noted)
    return found


def test_a_folder_is_decoded_once_until_it_changes(decoded: list[int]) -> None:
    write_classes(HERE, 20, 20)
    data = find_data(HERE)
    assert look_at_files(HERE) == (data.name, data.train_images, 8)
    for _ in range(3):
        assert find_data(HERE) == data
    assert decoded == [40]
    write_images(HERE / "class 0", 21)
    assert look_at_files(HERE)[0] is None
    assert find_data(HERE).train_images == 33
    assert decoded == [40, 41]


def test_the_same_images_elsewhere_are_the_same_data(decoded: list[int]) -> None:
    for folder in ("images", "others"):
        write_classes(Path(folder), 20, 20)
    first = find_data(HERE)
    before = (Path(first.folder) / "train_images.npy").stat().st_ino
    assert find_data(Path("others")) == first
    assert (Path(first.folder) / "train_images.npy").stat().st_ino == before  # workers may have mapped it
    assert decoded == [40, 40]


@pytest.mark.parametrize("content", ["", "[]", '{"entry": "own-1"}', None])
def test_what_is_remembered_may_be_damaged_or_its_entry_gone(decoded: list[int], content: str | None) -> None:
    write_classes(HERE, 20, 20)
    data = find_data(HERE)
    (path,) = (cache_folder() / FOLDERS).iterdir()
    if content is None:
        path.write_text(json.dumps({**json.loads(path.read_text()), "entry": "own-1"}))
    else:
        path.write_text(content)
    assert find_data(HERE) == data
    assert decoded == [40, 40]


def test_nothing_is_written_into_the_folder() -> None:
    write_classes(HERE, 20, 20)
    before = {path: path.stat().st_mtime_ns for path in [HERE, *HERE.rglob("*")]}
    find_data(HERE)
    assert {path: path.stat().st_mtime_ns for path in [HERE, *HERE.rglob("*")]} == before


def test_a_cache_that_is_full_is_an_error_that_says_how_much_is_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write_classes(HERE, 20, 20)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(intake, "decode_images", full)
    with pytest.raises(DataError, match=r"No space left on device. It needs 1 MB"):
        find_data(HERE)
    assert {path.name for path in cache_folder().iterdir()} == {".lock"}


def test_progress_is_a_line_at_the_start_and_then_now_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    write_classes(HERE, 40, 40)
    monkeypatch.setattr(intake, "SILENCE_SECONDS", 0.0)
    output = io.StringIO()
    find_data(HERE, output=output)
    assert output.getvalue().splitlines() == [
        "Reading 80 images of images, 40 x 40 pixels.",
        "64 of 80 images",
        "80 of 80 images",
    ]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_shows_a_bar() -> None:
    write_classes(HERE, 20, 20)
    output = Terminal()
    find_data(HERE, output=output)
    assert "40/40" in output.getvalue()


def test_a_listing_of_many_files_is_made_in_a_moment() -> None:
    for label in ("a", "b"):
        (HERE / label).mkdir(parents=True)
        for number in range(2000):
            os.mknod(HERE / label / f"{number}.png")
    begin = time.process_time()
    look_at_files(HERE)
    assert time.process_time() - begin < 0.5  # 4,000 of the 60,000 that may take 1 s, with much to spare
