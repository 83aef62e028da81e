"""Whether an exported file is the same model, and how fast it answers."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mc1opt.errors import ModelError
from mc1opt.inference.open_model import Images, Outputs

TOLERANCE = 1e-3
"""Greatest difference of a logit, in float32; kernels round differently, but by far less."""
RANDOM_IMAGES = 1_000
"""Images of noise, compared besides the validation images: they reach logits that photographs do not."""
BATCH_SIZES = (1, 2, 61, 256)
"""Images in the first batches that are compared; all later ones have `LAST_BATCH`."""
LAST_BATCH = 500
LATENCY_BATCHES = (1, 256)
LATENCY_SECONDS = 0.5
"""Shortest total time of the measurements of a batch size."""
LEAST_REPEATS = 5

Run = Callable[[Images], Outputs]


@dataclass(frozen=True)
class Check:
    """How a file's answers compare with the model's."""

    images: int
    max_logit_difference: float
    """NaN where a logit is not finite."""
    different_decisions: int
    """Images for which another logit is the greatest."""

    @property
    def same(self) -> bool:
        """Whether it is the same model, up to the rounding of float32."""
        return self.different_decisions == 0 and self.max_logit_difference <= TOLERANCE

    @property
    def finite(self) -> bool:
        """Whether all logits are numbers."""
        return bool(np.isfinite(self.max_logit_difference))


def images_to_compare(validation_images: Images) -> Images:
    """The validation images, then images of noise, which never change."""
    generator = np.random.Generator(np.random.PCG64(0))
    shape = (RANDOM_IMAGES, *validation_images.shape[1:])
    noise = generator.integers(0, 256, shape, dtype=np.uint8)
    return np.concatenate([np.ascontiguousarray(validation_images), noise])


def all_logits(run: Run, images: Images) -> NDArray[np.float32]:
    """The logits of all images (N x classes), from batches of different sizes, one of them a single image.

    Raises:
        ModelError: the outputs have other shapes, or the probabilities are not the softmax of the logits.
    """
    import torch

    few = np.cumsum(BATCH_SIZES)
    ends = [*few, *range(few[-1] + LAST_BATCH, len(images), LAST_BATCH)]
    parts = []
    for batch in np.split(images, [end for end in ends if end < len(images)]):
        logits, probabilities = run(batch)
        if logits.shape != probabilities.shape or len(logits) != len(batch):
            raise ModelError(f"{len(batch)} images gave outputs {logits.shape} and {probabilities.shape}.")
        # Logits that are not finite have no softmax; `compare` sees to them.
        softmax = torch.from_numpy(logits).softmax(1).numpy()
        if np.isfinite(logits).all() and not np.allclose(probabilities, softmax, atol=1e-5):
            raise ModelError("the probabilities are not the softmax of the logits.")
        parts.append(logits)
    return np.concatenate(parts)


def compare(run: Run, images: Images, expected: NDArray[np.float32]) -> Check:
    """Runs a model on all images and compares its logits with the expected ones (N x classes)."""
    logits = all_logits(run, images)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        difference = float(np.abs(logits - expected).max())
    return Check(
        images=len(images),
        max_logit_difference=difference,
        different_decisions=int((logits.argmax(1) != expected.argmax(1)).sum()),
    )


def latency(run: Run, images: Images) -> dict[str, float]:
    """Median milliseconds by batch size, after a warm-up batch."""
    milliseconds = {}
    for size in LATENCY_BATCHES:
        batch = np.resize(images, (size, *images.shape[1:]))
        run(batch)
        times: list[float] = []
        while len(times) < LEAST_REPEATS or sum(times) < LATENCY_SECONDS:
            started = time.perf_counter()
            run(batch)
            times.append(time.perf_counter() - started)
        milliseconds[f"batch_{size}_ms"] = round(1000 * statistics.median(times), 4)
    return milliseconds
