"""The model card: what a model is, what it was trained on and how good it is, in Markdown."""

import json

from mc1opt.config import config_to_json
from mc1opt.describe import describe_config
from mc1opt.inference.evaluate import confusion_lines
from mc1opt.models.cost import cost
from mc1opt.retraining.comparison import LEAST_SEEDS, TEST_NAME
from mc1opt.retraining.report import (
    Retraining,
    candidate_lines,
    folds_line,
    metric_lines,
    optimism_line,
    smaller_steps_lines,
    wider_lines,
)
from mc1opt.text import duration, plural


def model_card(result: Retraining, weights_sha256: str) -> str:
    """The card of a retrained model.

    Args:
        result: the retraining.
        weights_sha256: of the kept weights.
    """
    return "\n".join(
        [
            f"# Image classifier of study {result.options.study}",
            "",
            *_what(result),
            *_result(result),
            *_how_found(result),
            *_recipe(result),
            *_origin(result, weights_sha256),
        ]
    )


def _what(result: Retraining) -> list[str]:
    data, config = result.plan.data, result.final.config
    size = cost(config.architecture, data.shape)
    colour, order = ("grey", "grey") if data.channels == 1 else ("colour", "RGB")
    return [
        f"It classifies {colour} images of {data.size} x {data.size} pixels into {data.classes} classes "
        f"({', '.join(data.class_names)}).",
        "",
        f"- Network: {describe_config(config).split(' | ')[0]}; {size.parameters:,} parameters, "
        f"{size.macs:,} multiply-accumulates an image.",
        f"- Input: uint8, N x {data.channels} x {data.size} x {data.size}, {order}; normalisation is part of "
        f"the network. Output: {data.classes} logits.",
        "- `mc1opt.load_model(FOLDER)` loads it; `mc1opt export --model FOLDER` writes ONNX and others.",
        f"- Data: {data.name}, {data.train_images:,} training images. Accuracy on "
        "other images is unknown; any image gets one of the classes.",
        "",
    ]


def _result(result: Retraining) -> list[str]:
    test = result.test
    lines = [
        "## Result",
        "",
        f"Test accuracy of this recipe over seeds: {test.spread.line()}. This model is that of the first "
        f"seed, as fixed beforehand: {next(iter(test.by_seed.values())):.4f}.",
        "",
        "| seed | test accuracy |",
        "|---|---|",
        *(f"| {seed} | {accuracy:.4f} |" for seed, accuracy in test.by_seed.items()),
        "",
        *(part for line in metric_lines(result) for part in (f"{line}.", "")),
        optimism_line(result),
        "",
        *(part for line in smaller_steps_lines(result) for part in (line, "")),
    ]
    if result.over_folds is not None:
        lines += [folds_line(result.over_folds, result.retrained), ""]
    if test.opened_before:
        opened = "; ".join(test.opened_before)
        lines += [f"Earlier openings of the test images for this study: {opened}.", ""]
    lines += ["| class | accuracy, mean over seeds |", "|---|---|"]
    lines += [f"| {name} | {'-' if s is None else f'{s:.3f}'} |" for name, s in test.by_class.items()]
    return [*lines, "", "This model:", "", "```", *confusion_lines(test.kept, test.class_names), "```", ""]


def _how_found(result: Retraining) -> list[str]:
    plan = result.plan
    validation = plan.data.validation_images
    again = f"trained again on {plan.train_images:,} images over {plural(len(plan.seeds), 'seed')}"
    chosen = f"Its config alone was {again}, and compared with no other. It"
    if len(plan.candidates) > 1:
        early = f" Clearly worse ones stopped early ({TEST_NAME})." * (len(plan.seeds) > LEAST_SEEDS)
        chosen = (
            f"The best configs of the study were {again}; the winner has the best mean "
            f"{plan.aim.metric.label} on the {validation:,} validation images.{early} It"
        )
    return [
        "## How it was found",
        "",
        f"A search with Optuna, study {result.options.study}, trial {result.winner.candidate.trial}. "
        f"{chosen} was then trained on all {plan.data.train_images:,} training images, with each seed, and "
        "tested.",
        "",
        "```",
        *candidate_lines(result),
        "```",
        "",
        *(part for line in wider_lines(result) for part in (line, "")),
    ]


def _recipe(result: Retraining) -> list[str]:
    config = result.final.config
    return [
        "## Recipe",
        "",
        f"{result.final.epochs} epochs; {describe_config(config).split(' | ')[1]}.",
        "",
        "```json",
        json.dumps(config_to_json(config), indent=2),
        "```",
        "",
    ]


def _origin(result: Retraining, weights_sha256: str) -> list[str]:
    plan = result.plan
    versions = ", ".join(f"{name} {value}" for name, value in result.kept.versions.items())
    return [
        "## Origin",
        "",
        f"- Command: `{result.options.command}`",
        f"- Trained in {duration(result.training_seconds)} (all trainings together) on {plan.device}, "
        f"{plan.precision}; {plan.workers} at once.",
        f"- Versions: {versions}; commit {result.kept.commit or 'unknown'}.",
        f"- Config {result.winner.candidate.config_id}; seed of this model {plan.seeds[0]}.",
        f"- SHA-256 of the weights: `{weights_sha256}`",
        f"- SHA-256 of the data: `{plan.data.sha256}`",
        f"- Tested: {result.test.time}",
        "",
    ]
