"""`mc1opt predict` on image files, with what a search and an export left; and what it refuses."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mc1opt.config import CLASS_NAMES
from tests.data.test_image_files import png_of_size
from tests.support.command import files_below
from tests.training.test_model_folder import Trap


@pytest.fixture
def model(finished: Path, mc1opt_here) -> str:
    """An exported file, and photos."""
    mc1opt_here("export", "--study", "tiny", "--format", "safetensors", "--output", "out")
    generator = np.random.default_rng(0)
    Path("photos").mkdir()
    for i in range(3):
        pixels = generator.integers(0, 256, (50, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{i}.jpg")
    (path,) = Path("out").iterdir()
    return str(path)


def test_a_line_for_each_image_with_its_three_best_classes(model: str, mc1opt_here) -> None:
    result = mc1opt_here("predict", model, "photos")
    assert (result.returncode, result.stderr) == (0, "")
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["photos/0.jpg", "photos/1.jpg", "photos/2.jpg"]
    for line in lines:
        labels, probabilities = line.split()[1::2], [float(text) for text in line.split()[2::2]]
        assert len(labels) == 3
        assert set(labels) <= set(CLASS_NAMES)
        assert probabilities == sorted(probabilities, reverse=True)


def test_json_says_the_same(model: str, mc1opt_here) -> None:
    text = mc1opt_here("predict", model, "photos/1.jpg", "--top", "1").stdout
    (entry,) = json.loads(mc1opt_here("predict", model, "photos/1.jpg", "--top", "1", "--json").stdout)
    (best,) = entry["classes"]
    assert text == f"{entry['image']}  {best['label']} {best['probability']:.3f}\n"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "there is no image photo.png."),
        (b"text", "photo.png is no PNG, JPEG, WebP, GIF or TIFF image that can be read."),
        (png_of_size(20_000, 20_000), "photo.png is too large: it has more than 89,478,485 pixels."),
    ],
    ids=["missing", "no image", "too large"],
)
def test_a_bad_image_is_one_message(model: str, mc1opt_here, content: bytes | None, message: str) -> None:
    if content is not None:
        Path("photo.png").write_bytes(content)
    before = files_below(Path())
    result = mc1opt_here("predict", model, "photos/0.jpg", "photo.png")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: {message}")
    assert result.stderr.count("\n") == 1
    assert files_below(Path()) == before


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "JSON"])
def test_images_of_a_folder_that_cannot_be_read_are_named_at_the_end(
    model: str, mc1opt_here, as_json: bool
) -> None:
    options = ["--json"] if as_json else []
    good = mc1opt_here("predict", model, "photos", *options).stdout
    cut = Path("photos/0.jpg").read_bytes()[:700]
    for name, content in (("0a.jpg", cut), ("3.JPG", b""), (".DS_Store", b"x"), ("._0.jpg", b"Mac OS X")):
        Path("photos", name).write_bytes(content)
    os.mkfifo("photos/pipe.png")
    Path("photos/gone.gif").symlink_to("nowhere.gif")
    result = mc1opt_here("predict", model, "photos", *options)
    assert (result.returncode, result.stdout) == (1, good)
    first, *lines = result.stderr.splitlines()
    assert first == "Error: 4 of 7 images could not be read:"
    assert [line.split()[0] for line in lines] == [
        *("photos/0a.jpg", "photos/3.JPG", "photos/gone.gif", "photos/pipe.png")
    ]


def test_a_folder_of_nothing_but_unreadable_images_is_an_empty_answer(model: str, mc1opt_here) -> None:
    Path("bad").mkdir()
    Path("bad/x.png").touch()
    for options, output in (((), ""), (("--json",), "[]\n")):
        result = mc1opt_here("predict", model, "bad", *options)
        assert (result.returncode, result.stdout) == (1, output)
        assert result.stderr.startswith("Error: 1 of 1 images could not be read:\n  bad/x.png is no ")


@pytest.mark.parametrize("names", [[], ["._1.png", ".DS_Store"], ["x.txt"]], ids=["empty", "hidden", "text"])
def test_a_folder_without_images_is_an_error_at_once(model: str, mc1opt_here, names: list[str]) -> None:
    Path("empty").mkdir()
    for name in names:
        Path("empty", name).touch()
    result = mc1opt_here("predict", model, "photos", "empty", "--json")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == "Error: the folder empty holds no PNG, JPEG, WebP, GIF or TIFF file.\n"


def test_a_pickle_is_refused_and_not_executed(model: str, mc1opt_here) -> None:
    import pickle

    Path("model.pt").write_bytes(pickle.dumps(Trap()))
    result = mc1opt_here("predict", "model.pt", "photos")
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith("Error: model.pt is not opened")
    assert not Path("executed").exists()


def test_no_classes_at_all_is_wrong_use(mc1opt_here) -> None:
    result = mc1opt_here("predict", "model", "image.png", "--top", "0")
    assert result.returncode == 2
    assert result.stderr == "Error: --top 0 is too small; it must be at least 1.\n"
