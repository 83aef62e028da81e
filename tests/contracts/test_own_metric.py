"""A study by its own metric, with weighted classes and small networks: every command, on real trainings."""

import json
from pathlib import Path

import pytest

from mc1opt.training.model_folder import read_model_folder
from tests.support.command import TINY
from tests.support.image_sets import write_binary_folder

METRIC = """
CLASS_WEIGHTS = "balanced"
CONSTRAINTS = {"parameters": 100_000}
METRIC = "cost"
DIRECTION = "minimize"


def metric(logits, labels):
    from _prices import PRICE

    return PRICE * float((logits.argmax(1) != labels).mean())
"""
SEARCH = ("run", "--study", "mine", "--workers", "1", "--pruner", "none", "--data", "images")


@pytest.mark.slow
def test_a_study_files_own_metric_is_what_every_command_goes_by(mc1opt_here) -> None:
    write_binary_folder(Path("images"), train_images=200, test_images=40)
    Path("studies").mkdir()
    Path("studies/mine.py").write_text(TINY + METRIC)
    Path("studies/_prices.py").write_text("PRICE = 100\n")
    ended = mc1opt_here(*SEARCH, "--trials", "3", "--confirm", "1")
    assert ended.returncode == 0, ended.stderr
    assert (
        "judged by cost (minimize), rare classes weighing more, networks of at most 100,000" in ended.stdout
    )
    study = json.loads(mc1opt_here("show", "--study", "mine", "--json").stdout)
    assert (study["metric"], study["direction"], study["class_weights"]) == ("cost", "minimize", "balanced")
    complete = [trial for trial in study["trials"] if trial["value"] is not None]
    for trial in complete:
        assert trial["value"] == 100 * (1 - trial["accuracies"][-1])
        assert trial["parameters"] <= 100_000
    assert study["best"]["value"] == min(trial["value"] for trial in complete)
    assert any(trial["constraints"].get("too_many_parameters", 0) > 0 for trial in study["trials"])

    same = mc1opt_here("replay", "--study", "mine", "--trial", str(study["best"]["number"]))
    assert "equal, bit for bit" in same.stdout, same.stderr

    options = ("--epochs", "2", "--seeds", "2", "--top", "2", "--workers", "1")
    retrained = mc1opt_here("retrain", "--study", "mine", *options)
    assert retrained.returncode == 0, retrained.stderr
    metrics = read_model_folder(Path("storage/models/mine")).metrics
    assert metrics["winner"]["mean"] == min(each["mean"] for each in metrics["candidates"])
    tested = [known["cost"] for known in metrics["test"]["metrics"].values()]
    accuracies = metrics["test"]["by_seed"].values()
    assert tested == [100 * (1 - accuracy) for accuracy in accuracies]
    assert f"Test cost: {sum(tested) / 2:.4f}" in retrained.stdout
    assert f"test {sum(tested) / 2:.4f}" in retrained.stdout  # in the line of optimism

    Path("studies/_prices.py").write_text("PRICE = 101\n")
    refused = mc1opt_here(*SEARCH, "--trials", "4")
    assert refused.returncode == 2
    assert "study 'mine' exists, and the metric differs" in refused.stderr
    assert mc1opt_here("replay", "--study", "mine", "--trial", "0").returncode == 1
