"""The model card says what a reader of a model must know, in Markdown."""

import json
import re

from mc1opt.config import config_from_json
from mc1opt.database.records import StudyRecord
from mc1opt.models.cost import cost
from mc1opt.retraining.card import model_card
from tests.support.retraining import retrain_curves, retrainable, retrainable_folder

__all__ = ["retrainable", "retrainable_folder"]


def test_the_card_says_what_it_is_how_good_it_is_and_where_it_comes_from(retrainable: StudyRecord) -> None:
    result = retrain_curves(folds=2, command="mc1opt retrain --study s").result
    card = model_card(result, "abc123")
    size = cost(result.winner.candidate.config.architecture)
    for part in (
        "# Image classifier of study s",
        f"{size.parameters:,} parameters, {size.macs:,} multiply-accumulates",
        "uint8, N x 3 x 32 x 32",
        f"{result.plan.data.name}, 200 training images",
        result.test.spread.line(),
        f"| {result.plan.seeds[0]} | 0.8000 |",
        "Cross-validation, 2 stratified folds",
        f"trial {result.winner.candidate.trial}",
        "paired t test over the common seeds, two-sided",
        "`mc1opt retrain --study s`",
        f"torch {result.versions['torch']}",
        f"Config {result.winner.candidate.config_id}; seed of this model {result.plan.seeds[0]}",
        "SHA-256 of the weights: `abc123`",
        f"SHA-256 of the data: `{result.plan.data.sha256}`",
    ):
        assert part in card, part
    assert result.plan.data.folder not in card


def test_the_recipe_in_the_card_is_the_config(retrainable: StudyRecord) -> None:
    result = retrain_curves(seeds=1, top=1).result
    (recipe,) = re.findall(r"```json\n(.*?)\n```", model_card(result, ""), re.DOTALL)
    assert config_from_json(json.loads(recipe)) == result.winner.candidate.config


def test_of_a_trial_that_was_retrained_alone_no_comparison_is_told(retrainable: StudyRecord) -> None:
    card = model_card(retrain_curves(seeds=1, trial=0).result, "")
    assert "trial 0. Its config alone was trained again on 180 images over 1 seed" in card
    assert "winner has" not in card
    assert "stop early" not in card


def test_an_accuracy_from_one_seed_is_called_that(retrainable: StudyRecord) -> None:
    assert "one training: nothing is known of its spread" in model_card(
        retrain_curves(seeds=1, top=1).result, ""
    )
