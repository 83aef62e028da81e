"""`mc1opt evaluate`: a model on the test images."""

import sys

from mc1opt.cli.options import DEFAULT_STORAGE, Data, Files, Json, Storage, located, print_result
from mc1opt.cli.predict import Model


def evaluate(
    model: Model,
    data: Data = None,
    storage: Storage = DEFAULT_STORAGE,
    files: Files = None,
    as_json: Json = False,
) -> None:
    """Measure a model on the test images, which is recorded.

    Prints accuracy with its 95 % confidence interval, accuracy by class, calibration error and confusion
    matrix. Every opening is recorded: a test set used to choose a model no longer tests it.

    \b
    Examples:
      mc1opt evaluate storage/models/cnn
      mc1opt evaluate storage/exports/cnn/trial-7.onnx --json
    """
    from mc1opt.inference.evaluate import evaluate as evaluate_model
    from mc1opt.inference.evaluate import evaluation_lines

    result = evaluate_model(
        model, data, storage=located(storage, files), output=sys.stderr if as_json else sys.stdout
    )
    print_result(result.to_json(), evaluation_lines(result), as_json)
