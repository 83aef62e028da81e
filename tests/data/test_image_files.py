"""Real image files of every kind, and files that are none."""

import io
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mc1opt.data.image_files import find_images, read_image, rgb_image, shorter_side
from mc1opt.errors import DataError
from tests.support.pictures import NEEDLESS, NEEDLESS_IN_TIFF, PICTURES, Picture

GENERATOR = np.random.default_rng(0)


def pixels(height: int, width: int, channels: int = 3) -> np.ndarray:
    return GENERATOR.integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(image: Image.Image, name: str = "image.png", **options: object) -> Path:
    image.save(name, **options)
    return Path(name)


# ---- What is done to an image ----------------------------------------------------------------------------


def test_an_image_of_32_by_32_pixels_stays_as_it_is() -> None:
    original = pixels(32, 32)
    image = read_image(save(Image.fromarray(original)), 3, 32)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, original.transpose(2, 0, 1))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 37), (37, 100), (20, 31), (1, 900)])
def test_the_central_square_is_resized(height: int, width: int) -> None:
    original = pixels(height, width)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(original[top : top + side, left : left + side])
    expected = np.asarray(square.resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(
        read_image(save(Image.fromarray(original)), 3, 32), expected.transpose(2, 0, 1)
    )


@pytest.mark.parametrize("mode", ["RGB", "L", "P", "1", "RGBA"])
def test_a_bitmap_is_read(mode: str) -> None:
    image = Image.fromarray(pixels(32, 32)).convert(mode)
    read = read_image(save(image, "image.bmp"), 3, 32)
    np.testing.assert_array_equal(read, np.asarray(image.convert("RGB")).transpose(2, 0, 1))


def test_the_shorter_side_is_that_of_the_header() -> None:
    assert shorter_side(save(Image.fromarray(pixels(50, 31)))) == 31
    Path("text.png").write_text("text")
    assert shorter_side(Path("text.png")) is None
    assert shorter_side(Path("none.png")) is None


@pytest.mark.parametrize("picture", PICTURES.values(), ids=PICTURES)
def test_a_picture_is_what_a_viewer_shows_on_white(picture: Picture) -> None:
    """Also compared with a browser, in tests/browser: the same files, and the same pixels."""
    np.testing.assert_allclose(rgb_image(picture.content, "image").convert("RGB"), picture.shown, atol=2)


@pytest.mark.parametrize(
    "picture", {**NEEDLESS, **NEEDLESS_IN_TIFF}.values(), ids=[*NEEDLESS, *NEEDLESS_IN_TIFF]
)
def test_metadata_changes_nothing_whatever_is_wrong_with_it(picture: Picture) -> None:
    np.testing.assert_array_equal(rgb_image(picture.content, "image"), picture.shown)


# ---- What is no image ------------------------------------------------------------------------------------


def encoded(kind: str) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels(64, 64)).save(file, kind)
    return file.getvalue()


def png_of_size(width: int, height: int) -> bytes:
    """A PNG file of a few bytes that says to be so large."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        sum_ = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + sum_

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "PNG, JPEG, WebP, BMP, GIF or TIFF"),
        (b"no image at all", "PNG, JPEG, WebP, BMP, GIF or TIFF"),
        (encoded("PPM"), "PNG, JPEG, WebP, BMP, GIF or TIFF"),
        (encoded("GIF")[:3000], "damaged"),
        (encoded("WEBP")[:3000], "damaged"),
        (encoded("TIFF")[:3000], "damaged|PNG"),
        (encoded("PNG")[:3000], "damaged"),
        (encoded("JPEG")[:1000], "damaged"),
        (encoded("PNG")[:20], "damaged|PNG"),
        (png_of_size(20_000, 20_000), "89,478,485"),
        (png_of_size(10_000, 10_000), "89,478,485"),
        (png_of_size(2**31 - 1, 2**31 - 1), "89,478,485"),
        (png_of_size(0, 5), "image"),
    ],
    ids=[
        "empty",
        "text",
        "ppm",
        "gif cut",
        "webp cut",
        "tiff cut",
        "png cut",
        "jpeg cut",
        "header cut",
        "20,000",
        "10,000",
        "greatest",
        "zero",
    ],
)
def test_what_is_no_image_or_too_large_is_said(content: bytes, message: str) -> None:
    Path("image.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"image\.png.*({message})"):
        read_image(Path("image.png"), 3, 32)


# ---- Finding images --------------------------------------------------------------------------------------


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def test_folders_give_their_images_at_any_depth_in_order() -> None:
    touch("a/2.png", "a/1.JPEG", "a/deep/er/0.jpg", "a/notes.txt", "a/3.Tiff", "a/x.png/4.webp")
    found = [str(path) for path in find_images(Path("a"))]
    assert found == ["a/1.JPEG", "a/2.png", "a/3.Tiff", "a/deep/er/0.jpg", "a/x.png/4.webp"]


def test_a_file_is_found_whatever_it_is_called_and_whether_it_is_there_or_not() -> None:
    touch("named.dat", ".hidden.png")
    for name in ("named.dat", ".hidden.png", "none.png"):
        assert find_images(Path(name)) == [Path(name)]


@pytest.mark.parametrize("hidden", ["._1.png", ".1.jpg", ".trash/1.png", "deep/.cache/er/1.gif"])
def test_what_is_hidden_in_a_folder_is_passed_over(hidden: str) -> None:
    touch("a/1.png", f"a/{hidden}")
    assert find_images(Path("a")) == [Path("a/1.png")]
    touch(f".b/{hidden}", ".b/1.png")  # the folder itself is named
    assert find_images(Path(".b")) == [Path(".b/1.png")]


@pytest.mark.parametrize("name", ["notes.txt", ".1.png", "x.png/notes.txt"])
def test_a_folder_without_an_image_is_refused(name: str) -> None:
    touch(f"empty/{name}")
    with pytest.raises(DataError, match=" empty "):
        find_images(Path("empty"))


def test_links_that_lead_in_circles_end() -> None:
    touch("a/1.png")
    Path("a/again").symlink_to("..")
    Path("a/loop.png").symlink_to("loop.png")
    assert find_images(Path("a")) == [Path("a/1.png"), Path("a/loop.png")]
    with pytest.raises(DataError, match=r"a/loop\.png .*Too many levels"):
        read_image(Path("a/loop.png"), 3, 32)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: None, "no image"),
        (os.mkfifo, "regular"),  # which would be waited for
        (lambda path: path.symlink_to("/dev/zero"), "regular"),
        (lambda path: path.symlink_to("nothing.jpg"), "link"),
        (Path.mkdir, "Is a directory"),
        (lambda path: (path.touch(), os.truncate(path, 2**40)), "1,099,511,627,776"),
    ],
    ids=["nothing", "pipe", "device", "link to nothing", "folder", "too large"],
)
def test_what_is_no_file_of_a_picture_is_said(make: Callable[[Path], object], message: str) -> None:
    make(Path("x.jpg"))
    with pytest.raises(DataError, match=message) as caught:
        read_image(Path("x.jpg"), 3, 32)
    assert "x.jpg" in str(caught.value)


def test_what_may_not_be_read_is_said() -> None:
    touch("a/1.png", "a/closed/2.png", "a/3.png")
    Path("a/closed").chmod(0)
    Path("a/3.png").chmod(0)
    try:
        if os.access("a/3.png", os.R_OK):
            pytest.skip("this user may read everything")
        found = find_images(Path("a"))
        assert found == [Path("a/1.png"), Path("a/3.png"), Path("a/closed")]
        for path in found[1:]:
            with pytest.raises(DataError, match=f"{path} .*Permission denied"):
                read_image(path, 3, 32)
    finally:
        Path("a/closed").chmod(0o700)
