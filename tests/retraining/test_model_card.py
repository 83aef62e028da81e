"""The model card has what a reader of a model must know, in Markdown."""

import json
import re

from mc1opt.config import config_from_json
from mc1opt.database.records import StudyRecord
from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.models.cost import cost
from mc1opt.retraining.model_card import model_card
from tests.support.retraining import retrain_curves, retrainable, retrainable_folder

__all__ = ["retrainable", "retrainable_folder"]


def test_the_card_says_what_it_is_how_good_it_is_and_where_it_comes_from(retrainable: StudyRecord) -> None:
    result = retrain_curves(folds=2, command="mc1opt retrain --study s")
    card = model_card(result, "abc123")
    candidate, data = result.winner.candidate, result.plan.data
    size = cost(candidate.config.architecture, CIFAR10_SHAPE)
    for part in (
        "# Image classifier of study s",
        f"{size.parameters:,}",
        f"{size.macs:,}",
        "uint8, N x 3 x 32 x 32",
        f"{data.name}, 200 training images",
        result.test.spread.line(),
        f"| {result.plan.seeds[0]} | 0.8000 |",
        "2 stratified folds",
        f"trial {candidate.trial}",
        "paired t test",
        "`mc1opt retrain --study s`",
        f"torch {result.kept.versions['torch']}",
        candidate.config_id,
        "abc123",
        data.sha256,
    ):
        assert part in card, part
    assert data.folder not in card
    (recipe,) = re.findall(r"```json\n(.*?)\n```", card, re.DOTALL)
    assert config_from_json(json.loads(recipe)) == candidate.config


def test_of_one_trial_and_one_seed_neither_comparison_nor_spread_is_told(retrainable: StudyRecord) -> None:
    result = retrain_curves(seeds=1, trial=0)
    assert [entry["trial"] for entry in result.to_json()["candidates"]] == [0]
    assert result.to_json()["test"]["interval"] is None
    card = model_card(result, "")
    for part in ("trial 0.", "180 images over 1 seed", "(one training"):
        assert part in card
    without_table = re.sub(r"```\nValidation accuracy.*?\n```", "", card, flags=re.DOTALL)
    for part in ("the winner has", "paired t test over", "stopped early"):
        assert part not in without_table
