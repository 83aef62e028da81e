"""Images that are there twice: with the same pixels, or nearly so.

Candidates have the same difference hash: whether each of 5 x 5 patches is darker than its neighbour, to the
right or below (Krawetz, "Kind of like that", 2013). Then the correlation of their pixels decides.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

PATCHES = 5
NOISE = 2.0
"""Grey levels: patches that differ by less count as equal."""
NEAR = 0.99
"""Correlation of two images, made grey, from which on they are nearly the same."""
COMPARED = 4
"""With so many of the earlier images that have the same hash an image is compared."""
CHUNK = 1000

Images = NDArray[np.uint8]
Pair = tuple[int, int]


def duplicates(images: Images) -> tuple[list[Pair], list[Pair]]:
    """Pairs of images with the same pixels, and of images that are nearly the same.

    Of each image only the first pair with an earlier one is told.

    Args:
        images: N x C x S x S; may be a map of a file.

    Returns:
        The exact and the near ones: the places of the earlier and of the later image.
    """
    exact = list(_first_pairs(hashlib.blake2b(image.tobytes(), digest_size=16).digest() for image in images))
    known = {later for _, later in exact}
    near: dict[int, int] = {}
    for hashes in _difference_hashes(images):
        groups: dict[bytes, list[int]] = defaultdict(list)
        for place, digest in enumerate(hashes):
            earlier = groups[digest]
            if place in known or place in near:
                continue
            twin = next(
                (other for other in earlier[:COMPARED] if _is_near(images[other], images[place])), None
            )
            if twin is not None:
                near[place] = twin
            earlier.append(place)
    return exact, [(earlier, later) for later, earlier in sorted(near.items())]


def _first_pairs(keys: Iterable[bytes]) -> Iterator[Pair]:
    first: dict[bytes, int] = {}
    for place, key in enumerate(keys):
        earlier = first.setdefault(key, place)
        if earlier != place:
            yield earlier, place


def _is_near(one: Images, other: Images) -> bool:
    first, second = (image.mean(0).ravel() - image.mean() for image in (one, other))
    return float(first @ second) >= NEAR * float(np.sqrt((first @ first) * (second @ second)))


def _difference_hashes(images: Images) -> tuple[list[bytes], list[bytes]]:
    """Of each image two hashes: of differences to the right, and below."""
    edges = np.linspace(0, images.shape[2], PATCHES + 2).astype(int)[:-1]  # one more patch than neighbours
    across: list[bytes] = []
    down: list[bytes] = []
    for start in range(0, len(images), CHUNK):
        grey = images[start : start + CHUNK].mean(1, dtype=np.float32)
        sums = np.add.reduceat(np.add.reduceat(grey, edges, axis=1), edges, axis=2)
        sides = np.diff([*edges, images.shape[2]])
        means = sums / np.outer(sides, sides)
        for hashes, bits in (
            (across, means[:, :PATCHES, 1:] - means[:, :PATCHES, :-1] > NOISE),
            (down, means[:, 1:, :PATCHES] - means[:, :-1, :PATCHES] > NOISE),
        ):
            hashes += [packed.tobytes() for packed in np.packbits(bits.reshape(len(bits), -1), axis=1)]
    return across, down
