"""Real image files of every kind, and files that are none."""

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mc1opt.errors import DataError
from mc1opt.results.image_files import find_images, read_image

GENERATOR = np.random.default_rng(0)


def pixels(height: int, width: int, channels: int = 3) -> np.ndarray:
    return GENERATOR.integers(0, 256, (height, width, channels), dtype=np.uint8)


def save(image: Image.Image, name: str = "image.png", **options: object) -> Path:
    image.save(name, **options)
    return Path(name)


# ---- What is done to an image ----------------------------------------------------------------------------


def test_an_image_of_32_by_32_pixels_stays_as_it_is() -> None:
    original = pixels(32, 32)
    image = read_image(save(Image.fromarray(original)))
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, original.transpose(2, 0, 1))


@pytest.mark.parametrize(("height", "width"), [(64, 64), (100, 37), (37, 100), (20, 31), (1, 900)])
def test_the_central_square_is_resized(height: int, width: int) -> None:
    original = pixels(height, width)
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = Image.fromarray(original[top : top + side, left : left + side])
    expected = np.asarray(square.resize((32, 32), Image.Resampling.BICUBIC))
    np.testing.assert_array_equal(read_image(save(Image.fromarray(original))), expected.transpose(2, 0, 1))


def test_shrinking_averages_over_all_pixels() -> None:
    stripes = np.zeros((320, 320, 3), dtype=np.uint8)
    stripes[:, ::2] = 200
    assert np.abs(read_image(save(Image.fromarray(stripes))).astype(int) - 100).max() <= 4


def test_a_photograph_is_turned_as_its_exif_orientation_says() -> None:
    original = Image.fromarray(pixels(48, 48))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: the image must be turned by 90 degrees clockwise
    turned = read_image(save(original, exif=exif))
    expected = original.transpose(Image.Transpose.ROTATE_270).resize((32, 32), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(turned, np.asarray(expected).transpose(2, 0, 1))


def test_grey_and_palette_images_become_rgb() -> None:
    grey = pixels(32, 32, 1)[:, :, 0]
    np.testing.assert_array_equal(read_image(save(Image.fromarray(grey))), np.stack([grey] * 3))
    palette = Image.fromarray(pixels(32, 32)).quantize(16)
    expected = np.asarray(palette.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(read_image(save(palette)), expected)


def test_transparent_parts_become_white() -> None:
    image = pixels(32, 32, 4)
    image[:, :16, 3], image[:, 16:, 3] = 0, 255
    read = read_image(save(Image.fromarray(image)))
    assert (read[:, :, :16] == 255).all()
    np.testing.assert_array_equal(read[:, :, 16:], image[:, 16:, :3].transpose(2, 0, 1))


def test_sixteen_bits_become_eight() -> None:
    values = GENERATOR.integers(0, 65536, (32, 32), dtype=np.uint16)
    read = read_image(save(Image.fromarray(values)))
    np.testing.assert_array_equal(read, np.stack([values >> 8] * 3).astype(np.uint8))


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_jpeg_is_read(mode: str) -> None:
    path = save(Image.new("RGB", (40, 40), (200, 30, 30)).convert(mode), "photo.JPG", format="JPEG")
    assert read_image(path).shape == (3, 32, 32)


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
        (b"", "is no PNG or JPEG image"),
        (b"no image at all", "is no PNG or JPEG image"),
        (encoded("GIF"), "is no PNG or JPEG image"),
        (encoded("PNG")[:3000], "is damaged, or cannot be read"),
        (encoded("JPEG")[:1000], "is damaged, or cannot be read"),
        (encoded("PNG")[:20], "is no PNG or JPEG image|is damaged"),
        (png_of_size(20_000, 20_000), r"is too large: it has more than 89,478,485 pixels\. Make it smaller"),
        (png_of_size(10_000, 10_000), "is too large"),
        (png_of_size(2**31 - 1, 2**31 - 1), "is too large"),
        (png_of_size(0, 5), "image"),
    ],
    ids=["empty", "text", "gif", "png cut", "jpeg cut", "header cut", "20,000", "10,000", "greatest", "zero"],
)
def test_what_is_no_image_or_too_large_is_said(content: bytes, message: str) -> None:
    Path("image.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"image\.png.*({message})"):
        read_image(Path("image.png"))


# ---- Finding images --------------------------------------------------------------------------------------


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).touch()


def test_folders_give_their_images_at_any_depth_in_order() -> None:
    touch("a/2.png", "a/1.JPEG", "a/deep/er/0.jpg", "a/notes.txt", "named.dat")
    found = find_images([Path("named.dat"), Path("a")])
    assert [str(path) for path in found] == ["named.dat", "a/1.JPEG", "a/2.png", "a/deep/er/0.jpg"]


@pytest.mark.parametrize(
    ("prepare", "path", "message"),
    [
        (lambda: None, "none.png", r"there is no image none\.png"),
        (lambda: touch("empty/notes.txt"), "empty", "the folder empty holds no PNG or JPEG"),
    ],
)
def test_nothing_to_be_found_is_said(prepare: Callable[[], None], path: str, message: str) -> None:
    prepare()
    with pytest.raises(DataError, match=message):
        find_images([Path(path)])


def test_a_broken_exif_block_is_damage_of_the_file_that_is_named() -> None:
    path = save(Image.fromarray(pixels(40, 40)), exif=b"Exif\0\0II*\0")
    with pytest.raises(DataError, match=r"image\.png is damaged, or cannot be read"):
        read_image(path)
