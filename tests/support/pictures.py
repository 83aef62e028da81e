"""Image files of every kind, made by Pillow or byte by byte, and the pixels that a viewer shows of them."""

import io
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

Array = np.ndarray
GENERATOR = np.random.default_rng(15)
KEY = (0x1234, 0x5678, 0x9ABC)
"""A transparent colour of 16 bits."""


@dataclass(frozen=True)
class Picture:
    """A file, and what is seen of it on a white page: height x width x 3, uint8."""

    content: bytes
    shown: Array


def whole_numbers(*shape: int, below: int = 256) -> Array:
    return GENERATOR.integers(0, below, shape)


def on_white(colours: Array, alpha: Array) -> Array:
    """Colours and alpha (both 0 to 255; alpha of one dimension less) as a browser puts them on white."""
    share = alpha[..., None] / 255
    return np.round(np.broadcast_to(colours, (*alpha.shape, 3)) * share + 255 * (1 - share)).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation: int, order: str = "<", kind: int = 3, count: int = 1, entries: int = 1) -> bytes:
    """EXIF as PNG has it, with an orientation; cut off where it says to have more than one entry."""
    header = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(f"{order}IH", 8, entries)
    entry = struct.pack(f"{order}HHIHH", 0x0112, kind, count, orientation, 0)
    return header + entry + (bytes(4) if entries == 1 else b"")


# ---- PNG -------------------------------------------------------------------------------------------------


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def big_endian(values: Array | Sequence[int]) -> bytes:
    return np.asarray(values).astype(">u2").tobytes()


def png(depth: int, colours: int, samples: Array, *before: bytes, after: bytes = b"") -> bytes:
    """A PNG file of height x width (x channels) samples, with chunks before and after its pixels."""
    height, width = samples.shape[:2]
    if depth == 16:
        rows = [big_endian(row) for row in samples]
    elif depth == 8:
        rows = [row.astype(np.uint8).tobytes() for row in samples]
    else:
        bits = np.unpackbits(samples.astype(np.uint8)[..., None], axis=-1)[..., -depth:]
        rows = [np.packbits(row).tobytes() for row in bits]
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))
    pixels = chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(before) + pixels + after + chunk(b"IEND", b"")


def pngs() -> dict[str, Picture]:
    found = {}
    for depth in (1, 2, 4, 8, 16):
        greatest = 2**depth - 1
        grey = whole_numbers(4, 8, below=greatest + 1)
        grey[0, 0] = key = KEY[0] % greatest  # not white
        grey[0, 1] = key ^ 1
        shown = (grey >> 8 if depth == 16 else grey * (255 // greatest))[..., None]
        opaque = np.full(grey.shape, 255)
        found[f"grey {depth}"] = Picture(png(depth, 0, grey), on_white(shown, opaque))
        found[f"grey {depth} with a colour key"] = Picture(
            png(depth, 0, grey, chunk(b"tRNS", big_endian([key]))),
            on_white(shown, np.where(grey == key, 0, 255)),
        )
        if depth < 16:
            palette, alphas = whole_numbers(greatest + 1, 3), whole_numbers(greatest + 1)
            entries = chunk(b"PLTE", palette.astype(np.uint8).tobytes())
            for name, some in (
                ("", alphas[:0]),
                (" with alphas", alphas),
                (" with few alphas", np.array([0, 100][:depth])),
                (" with a transparent colour", np.array([255, 0])),
            ):
                transparency = [chunk(b"tRNS", some.astype(np.uint8).tobytes())] if some.size else []
                alpha = np.append(some, np.full(len(palette) - some.size, 255))[grey]
                found[f"palette {depth}{name}"] = Picture(
                    png(depth, 3, grey, entries, *transparency), on_white(palette[grey], alpha)
                )
    for depth, shift in ((8, 0), (16, 8)):
        rgb = whole_numbers(4, 5, 3, below=2**depth)
        rgb[0, 0] = key = np.array(KEY) >> (8 - shift)
        rgb[0, 1] = key ^ (0, 0, 1)
        alpha = whole_numbers(4, 5, below=2**depth)
        opaque = np.full((4, 5), 255)
        found |= {
            f"RGB {depth}": Picture(png(depth, 2, rgb), on_white(rgb >> shift, opaque)),
            f"RGB {depth} with a colour key": Picture(
                png(depth, 2, rgb, chunk(b"tRNS", big_endian(key))),
                on_white(rgb >> shift, np.where((rgb == key).all(2), 0, 255)),
            ),
            f"RGB {depth} with a colour key that is too short": Picture(
                png(depth, 2, rgb, chunk(b"tRNS", big_endian(key[:2]))), on_white(rgb >> shift, opaque)
            ),
            f"RGB {depth} with a colour key of another checksum": Picture(
                png(depth, 2, rgb, chunk(b"tRNS", big_endian(key))[:-4] + b"none"),
                on_white(rgb >> shift, opaque),
            ),
            f"RGBA {depth}": Picture(
                png(depth, 6, np.dstack([rgb, alpha])), on_white(rgb >> shift, alpha >> shift)
            ),
            f"grey and alpha {depth}": Picture(
                png(depth, 4, np.dstack([rgb[..., 0], alpha])),
                on_white(rgb[..., :1] >> shift, alpha >> shift),
            ),
        }
    faded = Image.fromarray(whole_numbers(6, 7, 4).astype(np.uint8))
    shown = on_white(np.asarray(faded)[..., :3], np.asarray(faded)[..., 3])
    frames = {"save_all": True, "append_images": [faded.rotate(180)]}
    found["animated PNG"] = Picture(encoded(faded, "PNG", **frames), shown)
    return found


# ---- GIF -------------------------------------------------------------------------------------------------


def gif(
    screen: tuple[int, int], frame: tuple[int, int, int, int], indices: Sequence[int], **what: int
) -> bytes:
    """A GIF of a few uncompressed pixels in red, green and blue.

    Args:
        screen: width and height of the picture.
        frame: left, top, width and height of the part that has pixels.
        indices: of its colours: 0, 1, 2.
        what: `transparent`, the index of a colour.
    """
    palette = bytes([255, 0, 0, 0, 255, 0, 0, 0, 255]).ljust(3 * 128, b"\x07")
    control = b"!\xf9\4" + bytes([1, 0, 0, what["transparent"], 0]) if what else b""
    bits = "".join(f"{code:08b}"[::-1] for code in (128, *indices, 129))  # clear, 7 bits a pixel, end
    data = bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))
    header = b"GIF89a" + struct.pack("<HHBBB", *screen, 0b11100110, 0, 0) + palette + control
    return header + b"," + struct.pack("<HHHHB", *frame, 0) + bytes([7, len(data)]) + data + b"\0;"


def gifs() -> dict[str, Picture]:
    red, green, blue, white = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)
    palette = Image.fromarray(whole_numbers(8, 9, 3).astype(np.uint8)).quantize(16)
    indices, colours = np.asarray(palette), np.array(palette.getpalette()).reshape(-1, 3)
    shown = colours[indices].astype(np.uint8)
    animation: dict[str, object] = {"save_all": True, "append_images": [palette.rotate(180)]}
    small = np.array([[white, white, white], [white, red, green], [white, blue, red]], np.uint8)
    one_transparent = small.copy()
    one_transparent[1, 2] = 255
    return {
        "GIF": Picture(encoded(palette, "GIF"), shown),
        "GIF with a transparent colour": Picture(
            encoded(palette, "GIF", transparency=5, optimize=False), on_white(shown, (indices != 5) * 255)
        ),
        "animated GIF": Picture(encoded(palette, "GIF", **animation), shown),
        "GIF with a small frame": Picture(gif((3, 3), (1, 1, 2, 2), [0, 1, 2, 0]), small),
        "GIF with a small frame and a transparent colour": Picture(
            gif((3, 3), (1, 1, 2, 2), [0, 1, 2, 0], transparent=1), one_transparent
        ),
        "GIF with a frame beyond its screen": Picture(gif((2, 2), (1, 1, 2, 2), [0, 1, 2, 0]), small),
        "GIF without its last byte": Picture(gif((3, 3), (1, 1, 2, 2), [0, 1, 2, 0])[:-1], small),
    }


# ---- JPEG and WebP ---------------------------------------------------------------------------------------


def segment(marker: int, content: bytes) -> bytes:
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(content) + 2) + content


def smooth(seed: int = 0) -> Image.Image:
    """48 x 32 pixels without edges, so that compression leaves them alike."""
    colours = np.random.default_rng(seed).integers(0, 256, (4, 6, 3), dtype=np.uint8)
    return Image.fromarray(colours).resize((48, 32), Image.Resampling.BICUBIC)


def jpegs() -> dict[str, Picture]:
    """Of one colour each, because JPEG changes the others."""
    found = {}
    rgb = Image.new("RGB", (16, 16), (200, 90, 30))
    for name, mode, options in (
        ("", "RGB", {}),
        (" progressive", "RGB", {"progressive": True}),
        (" of components RGB", "RGB", {"keep_rgb": True}),
        (" grey", "L", {}),
        (" CMYK", "CMYK", {}),
    ):
        image = rgb.convert(mode)
        content = encoded(image, "JPEG", quality=100, **options)
        found[f"JPEG{name}"] = Picture(content, np.asarray(image.convert("RGB")))
    cmyk = found[f"JPEG{name}"].content
    adobe = cmyk.index(b"Adobe")
    without = cmyk[: adobe - 4] + cmyk[adobe + 12 :]
    found["JPEG CMYK without Adobe's segment"] = Picture(without, found[f"JPEG{name}"].shown)
    # Its inverse as YCbCr: transform 2 in Adobe's segment says so.
    inverse = np.asarray(Image.fromarray(255 - np.asarray(rgb)).convert("YCbCr"))
    ycck = np.dstack([255 - inverse, np.zeros((16, 16), np.uint8)])
    content = bytearray(encoded(Image.fromarray(ycck, "CMYK"), "JPEG", quality=100))
    content[content.index(b"Adobe") + 11] = 2
    found["JPEG YCCK"] = Picture(bytes(content), found["JPEG"].shown)
    return found


def webps() -> dict[str, Picture]:
    image, alpha = smooth(), Image.linear_gradient("L").resize((48, 32))
    faded = image.copy()
    faded.putalpha(alpha)
    shown = on_white(np.asarray(image), np.asarray(alpha))
    second = {"save_all": True, "append_images": [faded.rotate(180)]}
    return {
        "WebP": Picture(encoded(image, "WEBP", lossless=True), np.asarray(image)),
        "WebP with alpha": Picture(encoded(faded, "WEBP", lossless=True, exact=True), shown),
        "animated WebP with alpha": Picture(
            encoded(faded, "WEBP", lossless=True, exact=True, **second), shown
        ),
    }


# ---- TIFF, which browsers do not show --------------------------------------------------------------------


def tiff(
    samples: Array,
    photometric: int,
    *,
    extra: int | None = None,
    order: str = "<",
    entries: Sequence[tuple[int, int, bytes]] = (),
) -> bytes:
    """A TIFF file of height x width (x channels) samples, by hand.

    Args:
        samples: of the type of the samples in the file.
        photometric: 0 white is zero, 1 black is zero, 2 RGB, 3 palette, 5 CMYK, 8 LAB.
        extra: of the last sample: 0 unspecified, 1 premultiplied alpha, 2 alpha.
        order: of the bytes.
        entries: more tags, with the number of their type and their bytes.
    """
    samples = samples.reshape(*samples.shape[:2], -1)
    height, width, channels = samples.shape
    content = samples.astype(samples.dtype.newbyteorder(order)).tobytes()

    def short(*values: int) -> bytes:
        return struct.pack(f"{order}{len(values)}H", *values)

    tags = [
        *((256, 3, short(width)), (257, 3, short(height)), (259, 3, short(1)), (262, 3, short(photometric))),
        *((258, 3, short(*[8 * samples.itemsize] * channels)), (277, 3, short(channels))),
        *((273, 3, short(8)), (278, 3, short(height)), (279, 3, short(len(content)))),
        *([(338, 3, short(extra))] if extra is not None else []),
        *([(339, 3, short(3))] if samples.dtype.kind == "f" else []),
        *entries,
    ]
    content += bytes(len(content) % 2)
    start = 8 + len(content)
    directory, outside = b"", b""
    for tag, kind, value in sorted(tags):
        size = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 7: 1}[kind]
        at = start + 2 + 12 * len(tags) + 4 + len(outside)
        if len(value) > 4:
            outside += value + bytes(len(value) % 2)
            place = struct.pack(f"{order}I", at)
        else:
            place = value.ljust(4, b"\0")
        directory += struct.pack(f"{order}HHI", tag, kind, len(value) // size) + place
    header = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, start)
    return header + content + struct.pack(f"{order}H", len(tags)) + directory + bytes(4) + outside


def tiffs() -> dict[str, Picture]:
    found = {}
    bytes_ = whole_numbers(4, 5, 4).astype(np.uint8)
    rgb, grey, alpha, opaque = bytes_[..., :3], bytes_[..., :1], bytes_[..., 3], np.full((4, 5), 255)
    more = whole_numbers(4, 5, 4, below=65536).astype(np.uint16)
    share = alpha[..., None] / 255
    palette = whole_numbers(256, 3)
    for order in "<>":

        def add(name: str, shown: Array, *what: object, order: str = order, **options: object) -> None:
            found[f"TIFF {order} {name}"] = Picture(tiff(*what, order=order, **options), shown)

        colormap = [(320, 3, (palette.T * 257).astype(f"{order}u2").tobytes())]
        for kind, unit in ((np.uint8, 1), (np.uint16, 257)):
            wide, premultiplied = bytes_.astype(kind) * kind(unit), np.round(rgb * share * unit).astype(kind)
            name = f"RGB {wide.itemsize * 8}"
            add(name, rgb, wide[..., :3], 2)
            add(f"{name} and alpha", on_white(rgb, alpha), wide, 2, extra=2)
            both = np.dstack([premultiplied, wide[..., 3]])
            add(f"{name} and premultiplied alpha", on_white(rgb, alpha), both, 2, extra=1)
            add(f"{name} and something else", rgb, wide, 2, extra=0)
        add("grey", on_white(grey, opaque), grey, 1)
        add("grey and alpha", on_white(grey, alpha), np.dstack([grey, alpha]), 1, extra=2)
        both = np.dstack([np.round(grey * share).astype(np.uint8), alpha])
        add("grey and premultiplied alpha", on_white(grey, alpha), both, 1, extra=1)
        add("grey 16", on_white(more[..., :1] >> 8, opaque), more[..., :1], 1)
        add("float", on_white(grey, opaque), grey.astype(np.float32) / 255, 1)
        add("palette", palette[grey[..., 0]].astype(np.uint8), grey, 3, entries=colormap)
        both = np.dstack([grey, alpha])
        add("palette and alpha", on_white(palette[grey[..., 0]], alpha), both, 3, extra=2, entries=colormap)
        cmyk = np.round((255 - rgb.astype(int)) * (1 - share)).astype(np.uint8)
        add("CMYK", cmyk, bytes_, 5)
    found["TIFF 16, white is zero"] = Picture(
        tiff(more[..., 0], 0), on_white(255 - (more[..., :1] >> 8), opaque)
    )
    image = smooth()
    for compression in ("tiff_lzw", "tiff_deflate", "packbits"):
        content = encoded(image, "TIFF", compression=compression)
        found[f"TIFF {compression}"] = Picture(content, np.asarray(image))
    pages = encoded(image, "TIFF", save_all=True, append_images=[image.rotate(180)])
    found["TIFF of two pages"] = Picture(pages, np.asarray(image))
    found["TIFF of 64 bits"] = Picture(encoded(image, "TIFF", big_tiff=True), np.asarray(image))
    return found


SEEN_IN_A_BROWSER = {**pngs(), **gifs(), **jpegs(), **webps()}
PICTURES = {**SEEN_IN_A_BROWSER, **tiffs()}


# ---- Metadata --------------------------------------------------------------------------------------------

PLAIN = Image.fromarray(whole_numbers(4, 6, 3).astype(np.uint8))
PIXELS = np.asarray(PLAIN)
JPEG = encoded(smooth(), "JPEG", quality=95)
JFIF_END = 20
XMP = b'<x tiff:Orientation="6"/>'


def with_segments(*segments: bytes, jpeg: bytes = JPEG) -> bytes:
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


NEEDLESS = {
    **{
        f"PNG with {name}": Picture(png(8, 2, PIXELS, *before, after=after), PIXELS)
        for name, before, after in (
            ("a large text", [chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(9_000_000)))], b""),
            ("text behind its pixels", [], chunk(b"iTXt", b"a\0\1\0\0\0" + zlib.compress(bytes(9_000_000)))),
            ("much text", [chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))] * 70, b""),
            ("text of another checksum", [chunk(b"tEXt", b"a\0b")[:-4] + b"none"], b""),
            ("a damaged profile", [chunk(b"iCCP", b"a\0\7x")], b""),
            ("a large profile", [chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(9_000_000)))], b""),
            ("a resolution cut off", [chunk(b"pHYs", b"\0\0\0\1")], b""),
            ("gamma and colours cut off", [chunk(b"gAMA", b"\0"), chunk(b"cHRM", b"\0")], b""),
            ("EXIF of nothing", [chunk(b"eXIf", b"")], b""),
            ("EXIF that leads nowhere", [chunk(b"eXIf", b"II*\0\xff\xff\xff\0")], b""),
            ("an animation of no frames", [chunk(b"acTL", bytes(8))], b""),
        )
    },
    **{
        f"JPEG with {name}": Picture(content, np.asarray(Image.open(io.BytesIO(JPEG)).convert("RGB")))
        for name, content in (
            ("a short JFIF segment", JPEG[:2] + segment(0xE0, b"JFIF\0") + JPEG[JFIF_END:]),
            ("a short Adobe segment", with_segments(segment(0xEE, b"Adobe"))),
            ("Photoshop's data cut off", with_segments(segment(0xED, b"Photoshop 3.0\x008BIM\3\xed"))),
            ("an empty profile", with_segments(segment(0xE2, b"ICC_PROFILE\0"))),
            ("damaged pictures within", with_segments(segment(0xE2, b"MPF\0II*\0" + b"x" * 20))),
            ("EXIF of nothing", with_segments(segment(0xE1, b"Exif\0\0"))),
            ("EXIF that leads nowhere", with_segments(segment(0xE1, b"Exif\0\0II*\0\xff\xff\xff\0"))),
            ("an orientation in XMP", with_segments(segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + XMP))),
            ("a long comment", with_segments(*[segment(0xFE, b"x" * 65_000)] * 20)),
            ("bytes between its segments", with_segments(b"\xff\xff\xff")),
            ("bytes behind its end", JPEG + b"junk" * 100),
        )
    },
    "WebP with damaged EXIF": Picture(encoded(PLAIN, "WEBP", lossless=True, exif=b"Exif\0\0II*\0"), PIXELS),
    "GIF with a long comment": Picture(
        encoded(PLAIN.convert("L"), "GIF", comment=bytes(60_000)),
        np.asarray(PLAIN.convert("L").convert("RGB")),
    ),
}  # fmt: skip
"""What is seen does not depend on the metadata that is named."""

NEEDLESS_IN_TIFF = {
    f"TIFF with {name}": Picture(tiff(PIXELS, 2, entries=entries), PIXELS)
    for name, entries in (
        ("a resolution in words", [(282, 2, b"abc\0"), (283, 2, b"12345\0")]),
        ("EXIF and GPS that lead nowhere", [(34665, 4, b"\xff\xff\xff\0"), (34853, 4, b"\3\0\0\0")]),
        ("a damaged profile", [(34675, 7, b"x" * 10)]),
        ("an orientation in XMP", [(700, 1, XMP)]),
        ("text that leads nowhere", [(270, 2, b"four"), (33723, 4, b"\5\0\0\0")]),
    )
}
