"""Image files without their metadata: what a decoder needs for the pixels, and the orientation.

A decoder that also reads the resolution, the author or a colour profile fails where these are damaged or
large, although a viewer shows the picture. So everything that the pixels do not need is removed first.
Nothing is decoded or refused here: other damage is left to the decoder.
"""

import re
import struct
import zlib

GREY, RGB, PALETTE = 0, 2, 3
"""PNG's colour types that may have a tRNS chunk."""
TRNS_LENGTHS = {GREY: range(2, 3), RGB: range(6, 7), PALETTE: range(1, 257)}

JPEG_MARKER = re.compile(rb"\xff+([^\xff\x00])")
JFIF, EXIF, ADOBE, COMMENT = 0xE0, 0xE1, 0xEE, 0xFE
APPLICATION = range(0xE0, 0xF0)
JPEG_NEEDED = {JFIF: (b"JFIF\0", 14), ADOBE: (b"Adobe", 12)}
"""Segments that say what the colours are: how each begins, and the least bytes with which it is valid."""
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
WITHOUT_LENGTH = {0x01, *range(0xD0, 0xD9)}

TIFF_NEEDED = {
    *range(256, 260), 262, 266, 273, 274, *range(277, 280), 284,  # size, samples, orientation, strips
    292, 293, 317, 320, *range(322, 326), 332,  # fax, predictor, palette, tiles, inks
    338, 339, 347, *range(512, 522), *range(529, 533),  # extra samples and their format, JPEG, YCbCr
}  # fmt: skip
ORIENTATION = (0x0112, 3, 1)
"""How EXIF's entry begins: the tag, the type (a number of 16 bits), and how many of them."""


def without_metadata(content: bytes) -> tuple[bytes, int]:
    """An image file reduced to what its pixels need, and its orientation.

    Args:
        content: of the file, in any format; GIF and unknown ones stay as they are.

    Returns:
        The file, and the EXIF orientation that is still to be applied: 1 (upright) to 8.
    """
    for magic, strip in (
        (b"\x89PNG\r\n\x1a\n", _png),
        (b"\xff\xd8\xff", _jpeg),
        (b"RIFF", _webp),
        (b"II*\0", _tiff),
        (b"MM\0*", _tiff),
    ):
        if content.startswith(magic):
            try:
                return strip(content)
            except struct.error:  # it ends too early
                return content, 1
    return content, 1


def _png(content: bytes) -> tuple[bytes, int]:
    """Keeps critical chunks and tRNS; the rest is metadata, or later frames of an animation."""
    depth, colours = struct.unpack_from("BB", content, 24)
    kept, orientation, at, kind = [content[:8]], 1, 8, b""
    while at + 8 <= len(content) and kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", content, at)
        chunk, data = content[at : at + 12 + length], content[at + 8 : at + 8 + length]
        at += 12 + length
        if kind[:1].isupper():
            kept.append(chunk)
        elif chunk != _chunk(kind, data):  # wrong checksum: ignored
            continue
        elif kind == b"eXIf" and kept[-1][4:8] != b"IDAT":
            orientation = _orientation(data)
        elif kind == b"tRNS" and length in TRNS_LENGTHS.get(colours, ()):
            kept.append(chunk if colours == PALETTE else _colour_key(data, depth))
    return b"".join(kept), orientation


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def _colour_key(content: bytes, depth: int) -> bytes:
    """The transparent colour as Pillow compares it with pixels, which it scales to 255 below 8 bits."""
    greatest = 2**depth - 1
    scale = max(255 // greatest, 1)
    values = [(value & greatest) * scale for (value,) in struct.iter_unpack(">H", content)]
    return _chunk(b"tRNS", struct.pack(f">{len(values)}H", *values))


def _jpeg(content: bytes) -> tuple[bytes, int]:
    """Removes application segments and comments, except the two that say what the colours are."""
    kept, orientation, at = [content[:2]], 1, 2
    while found := JPEG_MARKER.search(content, at):
        marker, at = found[1][0], found.end()
        if marker in (START_OF_SCAN, END_OF_IMAGE):
            kept.append(content[at - 2 :])
            break
        if marker in WITHOUT_LENGTH:
            continue
        (length,) = struct.unpack_from(">H", content, at)
        segment = content[at + 2 : at + length]
        beginning, least = JPEG_NEEDED.get(marker, (b"", 0))
        if marker == EXIF and segment.startswith(b"Exif\0") and orientation == 1:
            orientation = _orientation(segment[6:])
        is_metadata = marker == COMMENT or marker in APPLICATION
        if not is_metadata or (least and segment.startswith(beginning) and len(segment) >= least):
            kept.append(content[at - 2 : at + length])
        at += length
    return b"".join(kept), orientation


def _webp(content: bytes) -> tuple[bytes, int]:
    """Its decoder reads no metadata: the file stays as it is."""
    at = 12
    while at + 8 <= len(content):
        kind, length = struct.unpack_from("<4sI", content, at)
        if kind == b"EXIF":
            return content, _orientation(content[at + 8 : at + 8 + length].removeprefix(b"Exif\0\0"))
        at += 8 + length + length % 2
    return content, 1


def _tiff(content: bytes) -> tuple[bytes, int]:
    """The first page, with a directory of the needed tags alone; its decoder applies the orientation."""
    order = "<" if content.startswith(b"II") else ">"
    (start,) = struct.unpack_from(f"{order}I", content, 4)
    (count,) = struct.unpack_from(f"{order}H", content, start)
    entries = [content[at : at + 12] for at in range(start + 2, start + 2 + 12 * count, 12)]
    kept = [entry for entry in entries if struct.unpack_from(f"{order}H", entry)[0] in TIFF_NEEDED]
    padding = b"\0" * (len(content) % 2)
    header = content[:4] + struct.pack(f"{order}I", len(content) + len(padding))
    directory = struct.pack(f"{order}H", len(kept)) + b"".join(kept) + bytes(4)
    return header + content[8:] + padding + directory, 1


def _orientation(exif: bytes) -> int:
    """The orientation in EXIF; 1 (upright) if it is missing or cannot be read."""
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for at in range(start + 2, start + 2 + 12 * count, 12):
            entry = struct.unpack_from(f"{order}HHIH", exif, at)
            if entry[:3] == ORIENTATION:
                return entry[3] if 1 <= entry[3] <= 8 else 1
    except struct.error:  # it ends too early
        pass
    return 1
