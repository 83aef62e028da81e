"""The images that belong to a model or a study."""

from pathlib import Path

import pytest

from mc1opt.data.model_images import known_data, model_data, study_data
from mc1opt.errors import DataError, UsageError
from tests.support.image_sets import change_a_bit, write_arrays_folder
from tests.support.retraining import small_images

NAMED = {"name": "own-0123456789ab", "sha256": "0" * 64}


@pytest.mark.parametrize(
    "stored", [None, [], {}, {"name": 5, "sha256": "0"}, {"name": "cifar10"}, "cifar10"], ids=str
)
def test_what_names_no_data_is_not_known(stored: object) -> None:
    assert known_data(stored) is None


def test_name_and_hash_are_taken_from_whatever_else_is_stored() -> None:
    assert known_data({**NAMED, "train_images": 50}) == NAMED


def test_given_images_come_before_the_models_own() -> None:
    data = small_images()
    assert model_data("m", NAMED, Path("images"), None) == data


def test_the_models_own_are_found_in_the_cache() -> None:
    data = small_images()
    assert model_data("m", {"name": data.name, "sha256": data.sha256}, None, None) == data


def test_those_of_a_named_set_are_fetched_if_they_are_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mc1opt.data.sources.sources", lambda name: [])
    with pytest.raises(DataError, match="Kuzushiji-MNIST could not be fetched"):
        model_data("m", {"name": "kmnist", "sha256": "0" * 64}, None, None)


@pytest.mark.parametrize("path", [None, Path("images")], ids=["the models own", "given"])
def test_images_that_changed_in_the_cache_are_an_error(path: Path | None) -> None:
    data = small_images()
    change_a_bit(Path(data.folder) / "test_images.npy")
    with pytest.raises(DataError, match="test_images"):
        model_data("m", {"name": data.name, "sha256": data.sha256}, path, None)


def test_own_images_that_are_not_in_the_cache_are_asked_for() -> None:
    with pytest.raises(DataError, match=r"model m .*own-0123456789ab.*--data"):
        model_data("model m", NAMED, None, None)


@pytest.mark.parametrize("absolute", [True, False])
def test_a_name_that_is_a_path_names_no_images(absolute: bool) -> None:
    """Whatever a file says, another folder does not pose as the images of a model."""
    folder = Path(small_images().folder)
    name = str(folder) if absolute else f"../{folder.parent.name}/{folder.name}"
    with pytest.raises(DataError, match="model m "):
        model_data("model m", {"name": name, "sha256": "0" * 64}, None, None)


# ---- Those of a study --------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", [True, False])
def test_the_studys_own_images_are_found_in_the_cache_or_by_their_path(known: bool) -> None:
    """By their name, which holds their hash: what `sha256` is of has changed once."""
    data = small_images()
    wanted = {"name": data.name, "sha256": data.sha256 if known else "0" * 64}
    assert study_data("s", wanted, None, None) == study_data("s", wanted, Path("images"), None) == data


def test_other_images_are_refused_and_those_that_cannot_be_found_asked_for() -> None:
    data = small_images()
    write_arrays_folder(Path("others"), train_images=100)
    with pytest.raises(DataError, match=rf"{data.name}\b.* own-"):
        study_data("s", {"name": data.name, "sha256": data.sha256}, Path("others"), None)
    with pytest.raises(DataError, match=r"own-0123456789ab\b.*--data"):
        study_data("s", NAMED, None, None)
    with pytest.raises(UsageError, match="study 's'"):
        study_data("s", None, None, None)  # of another program
