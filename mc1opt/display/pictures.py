"""Pictures of a training's results as PNG: learning curve, confusion matrix, misclassified images.

Matplotlib's object interface draws them: without a window system or shared state, in any thread.
"""

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MOST_LABELLED = 30
"""Classes whose names and counts a confusion matrix shows."""
IMAGES_A_CLASS = 8
"""Misclassified images per row of the sheet."""


def learning_curve_picture(
    title: str, values: Sequence[float], losses: Sequence[float], metric: str = "accuracy"
) -> bytes:
    """A validation metric, and training loss if known, by epoch.

    Args:
        title: above the picture.
        values: of the metric, one per epoch.
        losses: one per epoch, or empty.
        metric: its name, for people.

    Returns:
        A PNG file.
    """
    from matplotlib.ticker import MaxNLocator

    figure = _figure(6.4, 4.0, left=0.12, right=0.88, bottom=0.13)
    axes = figure.add_subplot()
    epochs = range(1, len(values) + 1)
    axes.plot(epochs, values, color="tab:blue", marker="o", markersize=4, label=f"validation {metric}")
    if values:
        last = (len(values), values[-1])
        axes.annotate(f"{last[1]:.4f}", last, xytext=(0, -18), textcoords="offset points", ha="right")
    axes.set(title=title, xlabel="epoch", ylabel=f"validation {metric}")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.3)
    if losses:
        right = axes.twinx()
        right.plot(range(1, len(losses) + 1), losses, color="tab:orange", linestyle="--")
        right.set_ylabel("training loss (dashed)", color="tab:orange")
    return _png(figure)


def confusion_picture(title: str, confusion: Sequence[Sequence[int]], names: Sequence[str]) -> bytes:
    """A confusion matrix of counts, coloured by their share of the true class.

    Args:
        title: above the picture.
        confusion: counts, by true class (row) and decision (column).
        names: of the classes.

    Returns:
        A PNG file.
    """
    counts = np.asarray(confusion)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    figure = _figure(7.2, 7.0, left=0.16, right=0.97, bottom=0.14)
    axes = figure.add_subplot()
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set(title=title, xlabel="decision", ylabel="true class")
    if len(names) > MOST_LABELLED:  # neither names nor counts could be read
        return _png(figure)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_yticks(range(len(names)), names)
    for (row, column), count in np.ndenumerate(counts):
        colour = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=8)
    return _png(figure)


def misclassified_picture(
    title: str,
    images: NDArray[np.uint8],
    labels: NDArray[np.int64],
    decisions: NDArray[np.int64],
    names: Sequence[str],
) -> bytes:
    """Misclassified images in a row for each true class, with the decision below each image.

    Args:
        title: above the picture.
        images: N x C x H x W, RGB or grey; the first `IMAGES_A_CLASS` of each class are shown.
        labels: N, the true classes.
        decisions: N.
        names: of the classes.

    Returns:
        A PNG file.
    """
    size = images.shape[-1]
    shown_classes = np.unique(labels) if len(names) > MOST_LABELLED else np.arange(len(names))
    cell = (size + size * 3 // 8, size + size * 7 // 16)  # room for the text below, and a gap
    sheet = np.full((len(shown_classes) * cell[0], IMAGES_A_CLASS * cell[1], 3), 255, dtype=np.uint8)
    # One image with text in it: eighty images take Matplotlib seconds.
    figure = _figure(8.0, 9.0, left=0.12, right=0.99, bottom=0.01)
    axes = figure.add_subplot()
    for row, label in enumerate(shown_classes):
        shown = np.flatnonzero(labels == label)[:IMAGES_A_CLASS]
        for column, index in enumerate(shown):
            top, left = row * cell[0], column * cell[1]
            sheet[top : top + size, left : left + size] = images[index].transpose(1, 2, 0)
            caption = names[decisions[index]]
            axes.text(left + size / 2, top + size + 1, caption, ha="center", va="top", fontsize=7)
    axes.imshow(sheet)
    axes.set(title=title, xticks=[])
    middles = [row * cell[0] + size / 2 for row in range(len(shown_classes))]
    axes.set_yticks(middles, [names[label] for label in shown_classes])
    axes.tick_params(left=False)
    axes.spines[:].set_visible(False)
    return _png(figure)


def _figure(width: float, height: float, *, left: float, right: float, bottom: float) -> "Figure":
    """An empty figure: size in inches of 100 pixels, margins as shares of the size."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), dpi=100)
    FigureCanvasAgg(figure)
    # Fixed margins: an automatic layout draws each picture twice.
    figure.subplots_adjust(left=left, right=right, bottom=bottom, top=0.93)
    return figure


def _png(figure: "Figure") -> bytes:
    """The figure as PNG; without metadata, so that equal pictures have equal bytes."""
    file = io.BytesIO()
    figure.savefig(file, format="png", metadata={"Software": None})
    return file.getvalue()
