"""What a folder of image files is: its classes and parts; and what is refused, with what to do."""

import os
import unicodedata
from pathlib import Path

import pytest

from mc1opt.data import folders
from mc1opt.data.folders import ImageFolder, list_images
from mc1opt.errors import DataError
from tests.support.photographs import write_classes, write_images

HERE = Path("images")


def paths(files: list) -> list[str]:
    return [file.path for file in files]


def refused(path: Path = HERE) -> str:
    with pytest.raises(DataError) as caught:
        list_images(path)
    return str(caught.value)


def touch(*names: str) -> None:
    """Files of no content: nothing is decoded here."""
    for name in names:
        path = HERE / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


# ---- Parts and classes -----------------------------------------------------------------------------------


def test_parts_and_classes_are_folders_and_classes_are_in_the_order_of_their_names() -> None:
    touch(
        "train/dog/b.png", "train/dog/a.JPG", "train/cat/deep/er/x.webp", "test/dog/1.bmp", "test/cat/1.tif"
    )
    touch("train/cat/notes.txt", "train/cat/.hidden.png", "train/.git/x.png", "__MACOSX/x/y.png", "README.md")
    folder = list_images(HERE)
    assert folder.class_names == ("cat", "dog")
    assert paths(folder.train) == ["train/cat/deep/er/x.webp", "train/dog/a.JPG", "train/dog/b.png"]
    assert [file.label for file in folder.train] == [0, 1, 1]
    assert paths(folder.test) == ["test/cat/1.tif", "test/dog/1.bmp"]
    assert folder.validation == []
    assert folder.others == {".txt": 1}


@pytest.mark.parametrize("name", ["val", "valid", "Validation"])
def test_a_folder_of_validation_images_is_that(name: str) -> None:
    for part in ("Train", "Test", name):
        touch(f"{part}/a/1.png", f"{part}/b/1.png")
    folder = list_images(HERE)
    assert [paths(part)[0] for part in (folder.validation, folder.train, folder.test)] == [
        f"{name}/a/1.png", "Train/a/1.png", "Test/a/1.png",
    ]  # fmt: skip
    assert folder.files == folder.validation + folder.train + folder.test


def cut(counts: dict[str, int], prefix: str = "") -> ImageFolder:
    for name, count in counts.items():
        touch(*(f"{prefix}{name}/{number}.png" for number in range(count)))
    return list_images(HERE)


@pytest.mark.parametrize("prefix", ["", "train/"])
def test_without_a_test_folder_a_fifth_of_each_class_is_the_test_part(prefix: str) -> None:
    folder = cut({"a": 100, "b": 50, "c": 3, "d": 2}, prefix)
    assert [sum(file.label == label for file in folder.test) for label in range(4)] == [20, 10, 1, 0]
    # Of few images a fifth of the rest validates.
    assert [sum(file.label == label for file in folder.validation) for label in range(4)] == [16, 8, 0, 0]
    assert sorted(paths(folder.files)) == sorted(str(path.relative_to(HERE)) for path in HERE.rglob("*.png"))
    assert list_images(HERE) == folder


def test_of_many_images_a_tenth_validates_and_of_fewer_so_many_that_there_are_1000(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert folders.VALIDATION_IMAGES == 1000
    monkeypatch.setattr(folders, "VALIDATION_IMAGES", 100)
    assert len(cut({"a": 400, "b": 300}).validation) == 100
    (HERE / "a/0.png").unlink()
    touch(*(f"b/more/{number}.png" for number in range(900)))
    folder = list_images(HERE)
    assert len(folder.validation) == round(0.1 * len(folder.train + folder.validation))


def test_images_that_are_added_move_few_from_one_part_to_the_other() -> None:
    before = set(paths(cut({"a": 100, "b": 100}).test))
    after = set(paths(cut({"a": 110, "b": 100}).test))
    assert len(before - after) <= 3


def test_names_may_have_blanks_umlauts_and_dots_however_they_are_written() -> None:
    for part, form in (("train", "NFC"), ("test", "NFD")):
        name = unicodedata.normalize(form, "Gänse v1.0 (groß)")
        touch(f"{part}/{name}/ä ö.png", f"{part}/b c/1.png")
    assert list_images(HERE).class_names == (unicodedata.normalize("NFC", "Gänse v1.0 (groß)"), "b c")


def test_a_name_that_is_no_text_is_shown_as_far_as_it_is() -> None:
    touch("a/1.png")
    touch(os.fsdecode(b"b\xff/1.png"))
    assert list_images(HERE).class_names == ("a", "b\ufffd")


# ---- The fingerprint -------------------------------------------------------------------------------------


@pytest.mark.parametrize("change", ["nothing", "new", "gone", "renamed", "touched", "grown", "moved", "size"])
def test_the_fingerprint_changes_with_every_name_size_and_time(change: str) -> None:
    touch("a/1.png", "a/2.png", "a/3.png", "b/1.png", "b/2.png")
    before = list_images(HERE).fingerprint(None)
    size = None
    if change == "new":
        touch("a/4.png")
    elif change == "gone":
        (HERE / "a/3.png").unlink()
    elif change == "renamed":
        (HERE / "a/3.png").rename(HERE / "a/4.png")
    elif change == "touched":
        os.utime(HERE / "a/3.png", ns=(1, 1))
    elif change == "grown":
        status = (HERE / "a/3.png").stat()
        (HERE / "a/3.png").write_bytes(b"x")
        os.utime(HERE / "a/3.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "moved":
        (HERE / "a/3.png").rename(HERE / "b/3.png")
    elif change == "size":
        size = 16
    assert (list_images(HERE).fingerprint(size) == before) == (change == "nothing")


# ---- What is refused -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x.png"], "neither a folder for each class"),
        (["photos.zip"], r"Unpack photos.zip first"),
        (["a/1.png"], "has 1 class folders \\(a\\)"),
        (["flowers/a/1.png", "flowers/b/1.png"], "give images/flowers"),
        (["a/1.png", "b/notes.txt"], "images/b holds no PNG"),
        (["train/a/1.png", "train/b/1.png", "test/a/1.png"], "test lacks classes .*train has: b"),
        (["train/a/1.png", "train/b/1.png", *(f"test/{c}/1.png" for c in "abcdefgh")], "c, d, .* and 1 more"),
        (["train/a/1.png", "train/b/1.png", "val/a/1.png"], "val lacks classes .*train has: b"),
        (["train/1.png", "test/1.png"], "no folder for each class: put .* into train/CLASS/"),
        (["test/a/1.png", "val/a/1.png"], "no train folder"),
        (["train/a/1.png", "training/a/1.png"], "both train and training"),
        ([f"{number}/1.png" for number in range(1001)], "1001 class folders .* 2 to 1,000"),
    ],
    ids=lambda value: value[:30] if isinstance(value, str) else "",
)  # fmt: skip
def test_what_is_no_folder_of_classes_is_refused_with_what_to_do(names: list[str], message: str) -> None:
    touch(*names)
    with pytest.raises(DataError, match=message):
        list_images(HERE)


def test_links_within_the_folder_are_followed_and_others_are_refused() -> None:
    touch("a/1.png", "b/1.png")
    Path("outside.png").touch()
    (HERE / "a/2.png").symlink_to("1.png")
    Path("link").symlink_to(HERE)
    assert len(list_images(Path("link")).files) == 3
    for target, what in (
        (Path("outside.png").absolute(), "leads out"),
        (Path("../../none.png"), "leads out"),
    ):
        (HERE / "a/3.png").symlink_to(target)
        assert what in refused()
        assert "put a copy in its place" in refused()
        (HERE / "a/3.png").unlink()
    (HERE / "c").symlink_to("a")
    assert "images/c is a link that leads to a folder" in refused()


def test_a_folder_that_cannot_be_read_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """`scandir` stands for rights that do not stop root."""
    write_classes(HERE, 3, 3)
    scandir = os.scandir

    def scan(path):
        if str(path).endswith("class 1"):
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(os, "scandir", scan)
    assert "class 1 cannot be read: Permission denied" in refused()


def test_a_link_that_leads_nowhere_is_left_to_reading() -> None:
    write_images(HERE / "a", 2)
    write_images(HERE / "b", 2)
    (HERE / "a/2.png").symlink_to("none.png")
    assert [file.bytes for file in list_images(HERE).files if file.path == "a/2.png"] == [0]
