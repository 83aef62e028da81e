"""`mc1opt predict`: classifying image files."""

from pathlib import Path
from typing import Annotated

import typer

from mc1opt.cli.options import DEFAULT_STORAGE, Files, Json, Storage, located, print_result
from mc1opt.cli.values import at_least
from mc1opt.paths import user_path

Model = Annotated[
    Path,
    typer.Argument(help="Model folder, or exported file (.onnx, .safetensors, .pt2).", parser=user_path),
]

Images = Annotated[
    list[Path],
    typer.Argument(help="PNG, JPEG, WebP, BMP, GIF or TIFF files, or folders of them.", parser=user_path),
]


def predict(
    model: Model,
    images: Images,
    top: Annotated[int, typer.Option(help="Classes shown per image.")] = 3,
    storage: Storage = DEFAULT_STORAGE,
    files: Files = None,
    as_json: Json = False,
) -> None:
    """Classify images.

    The central square of each image is resized to what the model takes. In folders, hidden files are skipped;
    images that cannot be read are named at the end, with exit code 1. A pt2 file is opened only if it was
    exported here, because reading one can execute code.

    \b
    Examples:
      mc1opt predict storage/models/cnn cat.png
      mc1opt predict storage/exports/cnn/trial-7.onnx photos --top 1 --json
    """
    at_least(top, 1, "--top")

    from mc1opt.inference.predict import predict as predict_images

    predictions = predict_images(model, images, top=top, storage=located(storage, files))
    print_result(predictions.to_json(), predictions.lines(), as_json)
    predictions.raise_unreadable()
