"""The data sets that have a name, and that their hashes are the published ones."""

import gzip
import hashlib
import struct
from pathlib import Path

import pytest

from mc1opt.data.named import CIFAR10_COUNTS, CIFAR10_SHA256, NAMED, data_path, named_at, named_by_hash
from mc1opt.dataset import CIFAR10_CLASS_NAMES, CIFAR10_SHAPE

DEBIAN = Path("/usr/share/datasets/fashion-mnist")
PUBLISHED = {
    "train-images-idx3-ubyte": "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
    "train-labels-idx1-ubyte": "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
    "t10k-images-idx3-ubyte": "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
    "t10k-labels-idx1-ubyte": "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
}
"""Fashion-MNIST's SHA-256 of the decompressed files."""


def test_the_hashes_of_cifar10_are_those_of_its_arrays() -> None:
    """As the issue gives them, of the arrays in the order N, C, H, W."""
    assert CIFAR10_COUNTS == (50_000, 10_000)
    assert CIFAR10_SHA256 == {
        "train_images": "9d5c2eddadb0deff02c14c350c0385aab7b1d5ff1edfeb4997c8dc8644960111",
        "train_labels": "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
        "test_images": "177777c33ba79825320efa646ad04a94bdc3c80e4ebe3bd21724f8cdfd4b9d56",
        "test_labels": "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    }
    assert (NAMED["cifar10"].shape, NAMED["cifar10"].class_names) == (CIFAR10_SHAPE, CIFAR10_CLASS_NAMES)


def test_a_named_set_has_as_many_names_as_classes_and_is_found_by_its_hashes() -> None:
    assert list(NAMED) == ["cifar10", "cifar100", "fashion_mnist", "mnist", "kmnist"]
    for named in NAMED.values():
        assert named.class_names is None or len(set(named.class_names)) == named.shape.classes
        assert named.sha256 is None or named_by_hash(dict(named.sha256)) is named
    assert named_by_hash(dict.fromkeys(CIFAR10_SHA256, "0" * 64)) is None


@pytest.mark.parametrize("name", NAMED)
def test_a_name_is_the_data_set_whatever_lies_here(name: str) -> None:
    Path(name).mkdir()
    assert named_at(data_path(name)) is NAMED[name]
    for path in (f"./{name}", f"{name}/", str(Path(name).absolute())):
        assert named_at(data_path(path)) is None
        assert data_path(path) == Path(name).absolute()


def test_what_is_no_name_is_a_path_and_nothing_at_all_is_cifar10() -> None:
    assert named_at(None) is NAMED["cifar10"]
    assert named_at(data_path("images")) is None
    assert data_path("~/mnist") == Path.home() / "mnist"


@pytest.mark.skipif(not DEBIAN.is_dir(), reason="needs Debian's package dataset-fashion-mnist")
def test_the_hashes_of_fashion_mnists_arrays_belong_to_files_with_the_published_hashes() -> None:
    named = NAMED["fashion_mnist"]
    for name, published in PUBLISHED.items():
        content = gzip.decompress((DEBIAN / f"{name}.gz").read_bytes())
        assert hashlib.sha256(content).hexdigest() == published
        kind = ("train_" if name.startswith("train") else "test_") + name.split("-")[1]
        header = 16 if kind.endswith("images") else 8
        assert hashlib.sha256(content[header:]).hexdigest() == named.sha256[kind]
        assert struct.unpack(">I", content[4:8])[0] == named.counts[kind.startswith("test")]
