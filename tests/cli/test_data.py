"""`mc1opt data`: where the images are, and whether they are whole."""

import json
from pathlib import Path

import pytest

from tests.support.command import TINY_SEARCH, files_below, output_of
from tests.support.image_sets import change_a_bit, write_binary_archive, write_binary_folder


@pytest.fixture(autouse=True)
def images(tmp_path: Path) -> Path:
    write_binary_folder(tmp_path / "images", train_images=200, test_images=50)
    return tmp_path / "images"


def test_json_says_the_same_and_nothing_else(tmp_path: Path, mc1opt_here) -> None:
    report = json.loads(output_of(mc1opt_here("data", "--data", "images", "--json")))
    counts = {key: report[f"{key}_images"] for key in ("train", "validation", "test")}
    assert counts == {"train": 200, "validation": 20, "test": 50}
    assert Path(report["folder"]).parent == tmp_path / "cache"
    assert set(report["sha256"]) == {"train_images", "train_labels", "test_images", "test_labels"}


def test_the_same_images_have_the_same_hashes_in_an_archive(tmp_path: Path, mc1opt_here) -> None:
    write_binary_archive(tmp_path / "images.tar.gz", train_images=200, test_images=50)
    folder, archive = (
        json.loads(mc1opt_here("data", "--data", path, "--json").stdout)
        for path in ("images", "images.tar.gz")
    )
    assert folder["sha256"] == archive["sha256"]


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ((*TINY_SEARCH, "--trials", "4"), "train_images.npy"),
        (("retrain", "--study", "tiny", "--data", "images"), "test_labels.npy"),
        (("replay", "--study", "tiny", "--trial", "0", "--data", "images"), "train_labels.npy"),
        (("export", "--study", "tiny", "--format", "onnx"), "test_images.npy"),
        (("presets", "run", "mlp-128-64", "--data", "images", "--epochs", "1"), "train_images.npy"),
    ],
    ids=lambda value: value[0],
)
def test_no_command_trains_or_tests_on_images_that_changed(
    finished: Path, mc1opt_here, command: tuple[str, ...], name: str
) -> None:
    (changed,) = Path("cache").glob(f"own-*/{name}")
    change_a_bit(changed)
    before = files_below(Path())
    result = mc1opt_here(*command)
    assert result.returncode == 1
    assert changed.stem in result.stderr
    assert {path for path in files_below(Path()).keys() - before.keys() if "lock" not in path} == set()


@pytest.mark.real_data
def test_the_real_images_are_verified(mc1opt_here) -> None:
    report = json.loads(mc1opt_here("data", "--json").stdout)
    assert report["name"] == "cifar10"
    assert (report["train_images"], report["validation_images"], report["test_images"]) == (
        50_000,
        5_000,
        10_000,
    )
