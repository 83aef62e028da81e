"""Folders of image files: which files there are, of which class, and whether they train, validate or test.

Two forms: `train/CLASS/...`, with `test/CLASS/...` and `val/CLASS/...` if there are any; or only `CLASS/...`.
Where there is no test folder, a fifth of each class is the test part; where there is no val folder, a tenth
of the rest validates, or up to a fifth of few images. Nothing is decoded here, or written.
"""

import hashlib
import os
import unicodedata
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from mc1opt.data.formats import KNOWN_FILES
from mc1opt.data.image_files import ENDINGS, NAMES
from mc1opt.dataset import MOST_CLASSES
from mc1opt.errors import DataError
from mc1opt.text import few

PARTS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
"""What the folders of the parts are called, in small letters."""
TEST_SHARE = 0.2
"""Of the images, where there is no test folder."""
VALIDATION_SHARES = (0.1, 0.2)
"""Of the training images, where there is no folder of validation images: so many, or up to so many of few."""
VALIDATION_IMAGES = 1000
"""What the greater share is good for: to tell a few points of accuracy from luck."""
CUT_SEED = 20261130
"""Never change it: which images are test and validation images depends on it."""
ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".xz", ".bz2", ".7z", ".rar")


class ImageFile(NamedTuple):
    """An image file of a folder."""

    path: str
    """Below the folder."""
    label: int
    bytes: int
    mtime_ns: int


@dataclass(frozen=True)
class ImageFolder:
    """The image files of a folder."""

    path: Path
    class_names: tuple[str, ...]
    """In the order of the labels."""
    validation: list[ImageFile]
    train: list[ImageFile]
    test: list[ImageFile]
    others: Counter[str]
    """How many files are no images, by their ending."""

    @property
    def files(self) -> list[ImageFile]:
        """All of them, in the order of the arrays: validation, training, test."""
        return self.validation + self.train + self.test

    def fingerprint(self, image_size: int | None) -> str:
        """Changes with every name, size and time of a file, and with the size that is asked for."""
        digest = hashlib.sha256(
            repr((str(self.path), self.class_names, image_size)).encode("utf-8", "replace")
        )
        for part in (self.validation, self.train, self.test):
            for file in part:
                digest.update(os.fsencode(f"{file.path}\0{file.label}\0{file.bytes}\0{file.mtime_ns}\n"))
            digest.update(b"\n")
        return digest.hexdigest()


def list_images(path: Path) -> ImageFolder:
    """The image files of a folder, its classes and its parts.

    Raises:
        DataError: it is no folder of classes, or something in it is not as it should be; with what to do.
    """
    root = path.resolve()
    others: Counter[str] = Counter()
    parts = _parts(path, root)
    by_part = {part: _classes(folder, root, others) for part, folder in parts.items()}
    names = tuple(by_part["train"])
    for part, classes in by_part.items():
        _compare(parts["train"], names, parts[part], tuple(classes))
    if not 2 <= len(names) <= MOST_CLASSES:
        hint = ""
        if len(names) == 1 and _subfolders(parts["train"] / names[0], root):
            hint = f" If the classes are the folders in it, give {path / names[0]}."
        raise DataError(
            f"{parts['train']} has {len(names)} class folders ({few(names)}); 2 to {MOST_CLASSES:,} are "
            f"allowed.{hint}"
        )
    found = {
        part: [
            ImageFile(os.path.relpath(entry.path, root), label, *_state(entry))
            for label, entries in enumerate(classes.values())
            for entry in entries
        ]
        for part, classes in by_part.items()
    }
    train, test, validation = found["train"], found.get("test"), found.get("validation")
    if test is None:
        train, test = _cut(train, len(names), TEST_SHARE)
    if validation is None:
        least, most = VALIDATION_SHARES
        train, validation = _cut(train, len(names), max(least, min(most, VALIDATION_IMAGES / len(train))))
    return ImageFolder(root, names, validation, train, test, others)


def _parts(path: Path, root: Path) -> dict[str, Path]:
    """The folder of each part; the whole folder for training where it has classes alone."""
    folders = _subfolders(root, root)
    parts: dict[str, Path] = {}
    for folder in folders:
        part = PARTS.get(folder.name.lower())
        if part and parts.setdefault(part, folder) != folder:
            raise DataError(f"{path} has both {parts[part].name} and {folder.name}: which one is meant?")
    if "train" in parts and _subfolders(parts["train"], root):
        return parts
    if not folders:
        archives = sorted(file.name for file in root.iterdir() if file.name.lower().endswith(ARCHIVES))
        hint = f" Unpack {few(archives)} first?" if archives else ""
        raise DataError(
            f"--data {path} holds no images that can be read: neither a folder for each class, CLASS/... or "
            f"train/CLASS/... and test/CLASS/..., nor known files: {KNOWN_FILES}.{hint}"
        )
    if all(folder.name.lower() in PARTS for folder in folders):
        lacking = (
            "no train folder" if "train" not in parts else "images in train, but no folder for each class"
        )
        raise DataError(f"{path} has {lacking}: put the images into train/CLASS/ and test/CLASS/.")
    return {"train": root}


def _subfolders(folder: Path, root: Path) -> list[Path]:
    """The folders in a folder by name, without hidden ones."""
    return [Path(entry.path) for entry in _entries(folder, root) if entry.is_dir()]


def _entries(folder: Path | str, root: Path) -> list["os.DirEntry[str]"]:
    """What is in a folder by name, without what is hidden; links must stay in the root, and be of files."""
    try:
        with os.scandir(folder) as scanned:
            found = sorted(scanned, key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}.") from error
    entries = [entry for entry in found if not entry.name.startswith(".") and entry.name != "__MACOSX"]
    for entry in entries:
        if entry.is_symlink():
            target = Path(entry.path).resolve()
            if target.is_dir() or not target.is_relative_to(root):
                what = "leads to a folder" if target.is_relative_to(root) else "leads out of the folder"
                raise DataError(f"{entry.path} is a link that {what}, to {target}: put a copy in its place.")
    return entries


def _classes(folder: Path, root: Path, others: Counter[str]) -> dict[str, list["os.DirEntry[str]"]]:
    """The image files of each class folder, by the name of the class, in the order of the labels."""
    classes: dict[str, list[os.DirEntry[str]]] = {}
    for subfolder in _subfolders(folder, root):
        name = unicodedata.normalize("NFC", readable(subfolder.name))
        images = []
        for entry in _walk(subfolder, root):
            if entry.name.lower().endswith(ENDINGS):
                images.append(entry)
            else:
                others[Path(entry.name).suffix.lower()] += 1
        if not images:
            raise DataError(f"{subfolder} holds no {NAMES} file: remove the folder, or put images into it.")
        if name in classes:
            raise DataError(f"{folder} has two folders that are called {name}.")
        classes[name] = images
    return dict(sorted(classes.items()))


def _walk(folder: Path | str, root: Path) -> Iterator["os.DirEntry[str]"]:
    for entry in _entries(folder, root):
        if entry.is_dir():
            yield from _walk(entry.path, root)
        else:
            yield entry


def _state(entry: "os.DirEntry[str]") -> tuple[int, int]:
    """Bytes and time of change; of a link, its file's."""
    try:
        status = entry.stat()
    except OSError:  # a broken link, or gone: reading it says so
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _compare(train: Path, names: tuple[str, ...], folder: Path, others: tuple[str, ...]) -> None:
    for lacking, there, missing in (
        (folder, train, [name for name in names if name not in others]),
        (train, folder, [name for name in others if name not in names]),
    ):
        if missing:
            raise DataError(
                f"{lacking} lacks classes that {there} has: {few(missing)}. Give both the same folders."
            )


def _cut(files: list[ImageFile], classes: int, share: float) -> tuple[list[ImageFile], list[ImageFile]]:
    """What is left, and a share of each class, by a hash of the paths.

    So that images that are added later move few of the others from one part to the other.
    """
    by_class: list[list[ImageFile]] = [[] for _ in range(classes)]
    for file in files:
        by_class[file.label].append(file)
    cut = {
        file.path
        for members in by_class
        for file in sorted(members, key=_place)[: round(share * len(members))]
    }
    return [file for file in files if file.path not in cut], [file for file in files if file.path in cut]


def _place(file: ImageFile) -> bytes:
    return hashlib.sha256(os.fsencode(f"{CUT_SEED}/{file.path}")).digest()


def readable(name: str) -> str:
    """A name of a file that can be printed, whatever its bytes are."""
    return os.fsencode(name).decode("utf-8", "replace")
