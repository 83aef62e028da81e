"""IDX files give their arrays, compressed or not; others are named."""

import gzip

import numpy as np
import pytest

from mc1opt.data.formats import Arrays, read_files
from mc1opt.data.idx import idx_array, idx_names, read_idx
from mc1opt.errors import DataError
from tests.data.test_formats import assert_same
from tests.support.image_sets import idx_bytes, idx_files, write_archive, write_files

NAMES = [
    "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte",
]  # fmt: skip


def grey(images: int = 30, height: int = 28) -> Arrays:
    generator = np.random.default_rng(1)
    parts = []
    for count in (images, 10):
        pixels = generator.integers(0, 256, (count, 1, height, 28), dtype=np.uint8)
        parts += [pixels, (np.arange(count) % 10).astype(np.uint8)]
    return Arrays(*parts)


@pytest.mark.parametrize("compressed", [True, False])
def test_the_arrays_are_those_that_were_written(tmp_path, compressed: bool) -> None:
    arrays = grey()
    files = idx_files(arrays, compressed=compressed)
    for folder in ("images", "images/raw"):
        write_files(tmp_path / folder, files)
    write_archive(tmp_path / "images.tgz", files, "package/data")
    for path in ("images", "images/raw", "images.tgz"):
        assert_same(read_files(tmp_path / path), arrays)


def test_the_four_files_are_found_among_others() -> None:
    compressed = [f"{name}.gz" for name in NAMES]
    assert idx_names([*NAMES, *compressed, "README"]) == NAMES
    assert idx_names(compressed) == compressed
    assert idx_names([name.replace("-idx", ".idx") for name in NAMES])[0] == "train-images.idx3-ubyte"
    assert idx_names([name.replace("t10k", "test") for name in NAMES])[2] == "test-images-idx3-ubyte"
    assert idx_names(NAMES[:3]) == []


@pytest.mark.parametrize("shape", [(7,), (2, 3), (4, 5, 6)])
def test_any_shape_is_read(shape: tuple[int, ...]) -> None:
    array = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    np.testing.assert_array_equal(idx_array(idx_bytes(array), "x"), array)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "x is not an IDX file"),
        (b"\0\0\x0d\x01\0\0\0\x01\0\0\0\0", "x is not an IDX file"),  # of floats
        (b"\0\0\x08\x03\0\0", "x is not an IDX file"),
        (idx_bytes(np.zeros(5, np.uint8))[:-1], "x is damaged: 4 values .* 5"),
        (idx_bytes(np.zeros(5, np.uint8)) + b"0", "x is damaged: 6 values .* 5"),
    ],
)
def test_what_is_no_idx_file_is_named(content: bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        idx_array(content, "x")


def test_labels_in_the_place_of_images_are_noticed() -> None:
    files = idx_files(grey(), compressed=False)
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte has 1 dimensions; images have 3"):
        read_idx(lambda _: files["train-labels-idx1-ubyte"], NAMES)


def test_a_damaged_compressed_file_is_an_error_for_people(tmp_path) -> None:
    files = idx_files(grey(), compressed=True)
    for damaged in (files["train-images-idx3-ubyte.gz"][:-9], gzip.compress(b"")[:5] + b"x" * 30):
        write_files(tmp_path / "images", {**files, "train-images-idx3-ubyte.gz": damaged})
        with pytest.raises(DataError, match="images"):
            read_files(tmp_path / "images")
