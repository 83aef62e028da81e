"""`mc1opt data`: where the images are, and whether they are whole."""

import json
from pathlib import Path

import pytest

from tests.support.command import TINY_SEARCH, files_below
from tests.support.image_sets import change_a_bit, write_binary_archive, write_binary_folder


@pytest.fixture(autouse=True)
def images(tmp_path: Path) -> Path:
    write_binary_folder(tmp_path / "images", train_images=200, test_images=50)
    return tmp_path / "images"


def test_images_are_described(mc1opt_here) -> None:
    result = mc1opt_here("data", "--data", "images")
    assert (result.returncode, result.stderr) == (0, "")
    assert "200 training images (20 of them kept for validation), 50 test images" in result.stdout
    assert result.stdout.count("verified") == 4


def test_json_says_the_same_and_nothing_else(tmp_path: Path, mc1opt_here) -> None:
    result = mc1opt_here("data", "--data", "images", "--json")
    assert (result.returncode, result.stderr) == (0, "")
    report = json.loads(result.stdout)
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


def test_images_that_changed_in_the_cache_are_an_error(mc1opt_here) -> None:
    folder = Path(json.loads(mc1opt_here("data", "--data", "images", "--json").stdout)["folder"])
    change_a_bit(folder / "test_images.npy")
    result = mc1opt_here("data", "--data", "images")
    assert (result.returncode, result.stdout) == (1, "")
    assert "test_images changed since they were fetched" in result.stderr
    assert "Delete its folder" in result.stderr


@pytest.mark.parametrize(
    "command",
    [
        (*TINY_SEARCH, "--trials", "4"),
        ("retrain", "--study", "tiny", "--data", "images"),
        ("replay", "--study", "tiny", "--trial", "0", "--data", "images"),
        ("export", "--study", "tiny", "--format", "onnx"),
        ("presets", "run", "mlp-128-64", "--data", "images", "--epochs", "1"),
    ],
    ids=lambda command: command[0],
)
@pytest.mark.parametrize("name", ["train_images.npy", "test_labels.npy"])
def test_no_command_trains_or_tests_on_images_that_changed(
    finished: Path, mc1opt_here, command: tuple[str, ...], name: str
) -> None:
    (changed,) = Path("cache").glob(f"own-*/{name}")
    change_a_bit(changed)
    before = files_below(Path())
    result = mc1opt_here(*command)
    assert result.returncode == 1
    assert f"{changed.stem} changed since they were fetched" in result.stderr
    assert {path for path in files_below(Path()).keys() - before.keys() if "lock" not in path} == set()


def test_a_path_that_does_not_exist_is_named(mc1opt_here) -> None:
    result = mc1opt_here("data", "--data", "nowhere")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: --data nowhere does not exist.")


def test_a_folder_without_images_says_what_is_known(tmp_path: Path, mc1opt_here) -> None:
    (tmp_path / "empty").mkdir()
    result = mc1opt_here("data", "--data", "empty")
    assert result.returncode == 1
    assert "--data empty holds no CIFAR-10. Known are: data_batch_1.bin" in result.stderr
    assert not (tmp_path / "cache").exists()


@pytest.mark.real_data
def test_the_real_images_are_verified(mc1opt_here) -> None:
    report = json.loads(mc1opt_here("data", "--json").stdout)
    assert report["name"] == "cifar10"
    assert (report["train_images"], report["validation_images"], report["test_images"]) == (
        50_000,
        5_000,
        10_000,
    )
