"""`mc1opt predict` on image files, with what a search and an export left; and what it refuses."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.support.command import output_of


@pytest.fixture(autouse=True)
def _photos() -> None:
    generator = np.random.default_rng(0)
    Path("photos").mkdir()
    for i in range(3):
        pixels = generator.integers(0, 256, (50, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(f"photos/{i}.jpg")


def test_a_line_for_each_image_with_its_three_best_classes(model: str, mc1opt_here) -> None:
    result = output_of(mc1opt_here("predict", model, "photos"))
    lines = result.splitlines()
    assert [line.split()[0] for line in lines] == ["photos/0.jpg", "photos/1.jpg", "photos/2.jpg"]
    for line in lines:
        labels, probabilities = line.split()[1::2], [float(text) for text in line.split()[2::2]]
        assert len(labels) == 3
        assert set(labels) <= set("0123456789")
        assert probabilities == sorted(probabilities, reverse=True)


def test_json_says_the_same(model: str, mc1opt_here) -> None:
    text = mc1opt_here("predict", model, "photos/1.jpg", "--top", "1").stdout
    (entry,) = json.loads(mc1opt_here("predict", model, "photos/1.jpg", "--top", "1", "--json").stdout)
    (best,) = entry["classes"]
    assert text == f"{entry['image']}  {best['label']} {best['probability']:.3f}\n"


@pytest.mark.parametrize("as_json", [False, True], ids=["text", "JSON"])
def test_images_of_a_folder_that_cannot_be_read_are_named_at_the_end(
    model: str, mc1opt_here, as_json: bool
) -> None:
    options = ["--json"] if as_json else []
    output_of = mc1opt_here("predict", model, "photos", *options).stdout
    cut = Path("photos/0.jpg").read_bytes()[:700]
    for name, content in (("0a.jpg", cut), ("3.JPG", b""), (".DS_Store", b"x"), ("._0.jpg", b"Mac OS X")):
        Path("photos", name).write_bytes(content)
    os.mkfifo("photos/pipe.png")
    Path("photos/gone.gif").symlink_to("nowhere.gif")
    result = mc1opt_here("predict", model, "photos", *options)
    assert (result.returncode, result.stdout) == (1, output_of)
    first, *lines = result.stderr.splitlines()
    assert re.findall(r"\d+", first) == ["4", "7"]
    assert [line.split()[0] for line in lines] == [
        *("photos/0a.jpg", "photos/3.JPG", "photos/gone.gif", "photos/pipe.png")
    ]


def test_a_folder_of_nothing_but_unreadable_images_is_an_empty_answer(model: str, mc1opt_here) -> None:
    Path("bad").mkdir()
    Path("bad/x.png").touch()
    for options, output in (((), ""), (("--json",), "[]\n")):
        result = mc1opt_here("predict", model, "bad", *options)
        assert (result.returncode, result.stdout) == (1, output)
        assert "\n  bad/x.png " in result.stderr
