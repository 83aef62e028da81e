"""What people and programs see of images."""

import json
from pathlib import Path

from mc1opt.data.report import describe_data
from tests.support.photographs import write_classes, write_images

HERE = Path("images")


def test_a_folder_of_images_is_described() -> None:
    write_classes(HERE, 40, 20, 10)
    (HERE / "class 0/0.png").write_bytes(b"damaged")
    (HERE / "class 0/photo.heic").write_bytes(b"")
    report = describe_data(HERE)
    text = "\n".join(report.lines())
    for part in (
        "images   40 x 40 pixels, RGB, 3 classes",
        "shorter sides of the files: 40 to 40 pixels, median 40",
        "by their ending: 1 .heic",
        "class 0/0.png is not a readable PNG",
        "class 2",
        "! ",
    ):
        assert part in text
    content = json.loads(json.dumps(report.to_json()))
    assert content["shape"] == {"channels": 3, "size": 40, "classes": 3}
    assert sum(content["classes"]["class 2"].values()) == 10
    assert len(content["unreadable"]) == 1
    assert content["other_files"] == {".heic": 1}
    assert {finding["kind"] for finding in content["findings"]} >= {"least difference", "too few to validate"}


def test_of_many_classes_the_smallest_are_listed() -> None:
    for label in range(25):
        write_images(HERE / f"class {label:02}", 3 + label, label, size=(9, 9))
    lines = describe_data(HERE, image_size=8).lines()
    assert sum("class 0" in line for line in lines[10:21]) == 10
    assert "    the 10 smallest of 25 classes" in lines
