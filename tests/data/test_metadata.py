"""What is left of image files, and the orientation that viewers read in them."""

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageOps

from mc1opt.data.image_files import rgb_image
from mc1opt.data.metadata import without_metadata
from tests.support.pictures import (
    JPEG,
    NEEDLESS,
    PICTURES,
    PIXELS,
    chunk,
    encoded,
    exif,
    png,
    segment,
    smooth,
    tiff,
    with_segments,
)


def oriented(kind: str, orientation: int, order: str = "<") -> bytes:
    """A picture with an orientation."""
    content = exif(orientation, order)
    if kind == "PNG":
        return png(8, 2, PIXELS, chunk(b"eXIf", content))
    if kind == "JPEG":
        return with_segments(segment(0xE1, b"Exif\0\0" + content))
    if kind == "WebP":
        return encoded(smooth(), "WEBP", lossless=True, exif=content)
    return tiff(PIXELS, 2, order=order, entries=[(0x0112, 3, struct.pack(f"{order}H", orientation))])


@pytest.mark.parametrize("orientation", range(10))
@pytest.mark.parametrize("order", ["<", ">"], ids=["little-endian", "big-endian"])
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WebP", "TIFF"])
def test_a_picture_is_turned_as_its_orientation_says(kind: str, order: str, orientation: int) -> None:
    upright = rgb_image(oriented(kind, 1), "image")
    marked = upright.copy()
    marked.getexif()[0x0112] = orientation
    expected = ImageOps.exif_transpose(marked)
    np.testing.assert_array_equal(rgb_image(oriented(kind, orientation, order), "image"), expected)


@pytest.mark.parametrize(
    ("content", "orientation"),
    [
        (exif(6), 6),
        (exif(6, entries=9), 6),  # the others are cut off
        (exif(6, kind=4), 1),
        (exif(6, count=2), 1),
        (exif(6)[:14], 1),
        (exif(6)[:3], 1),
        (b"Exif\0\0" + exif(6), 1),  # in PNG, without these
        (b"II*\0\xff\xff\xff\xff", 1),
    ],
)
def test_an_orientation_is_read_as_a_browser_does(content: bytes, orientation: int) -> None:
    assert without_metadata(png(8, 2, PIXELS, chunk(b"eXIf", content)))[1] == orientation


@pytest.mark.parametrize(
    "content",
    [
        png(8, 2, PIXELS, after=chunk(b"eXIf", exif(6))),
        png(8, 2, PIXELS, chunk(b"eXIf", exif(6))[:-4] + b"none"),
        with_segments(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + exif(6))),
        JPEG + segment(0xE1, b"Exif\0\0" + exif(6)),
    ],
    ids=["behind the pixels", "another checksum", "XMP", "behind the end"],
)
def test_an_orientation_elsewhere_does_not_count(content: bytes) -> None:
    assert without_metadata(content)[1] == 1


@pytest.mark.parametrize("name", [name for name in NEEDLESS if name.startswith(("PNG", "JPEG"))])
def test_metadata_is_taken_out(name: str) -> None:
    plain = png(8, 2, PIXELS) if name.startswith("PNG") else JPEG
    assert len(without_metadata(NEEDLESS[name].content)[0]) <= len(plain) + 400


@pytest.mark.parametrize("name", ["RGB 16", "JPEG", "WebP", "GIF", "TIFF < RGB 8", "TIFF > palette"])
def test_a_file_that_is_cut_anywhere_is_left_to_the_decoder(name: str) -> None:
    content = PICTURES[name].content
    for length in range(len(content)):
        assert without_metadata(content[:length])[1] in range(1, 9)


def test_a_file_without_metadata_stays_as_it_is() -> None:
    for content in (png(8, 2, PIXELS), JPEG, encoded(smooth(), "WEBP"), b"", b"text"):
        assert without_metadata(content) == (content, 1)


def test_only_a_tiffs_first_page_is_left() -> None:
    with Image.open(io.BytesIO(without_metadata(PICTURES["TIFF of two pages"].content)[0])) as image:
        assert image.n_frames == 1
