"""Searches over networks that a function of the study file builds: failures, resuming, and what changes."""

from collections import Counter
from pathlib import Path

import pytest

from mc1opt.errors import NetworkError, UsageError
from mc1opt.search.definition import load_definition
from mc1opt.search.plan import typical_config
from tests.support.studies import facts, run_study, stored

FILE = """
from torch import nn

from mc1opt.config import SGD, Config, CustomNetwork

LOWEST = 0.01


def build(data, width, flat):
    layers = [nn.Conv2d(data.channels, width, 3), nn.ReLU()]
    layers += [] if flat else [nn.AdaptiveAvgPool2d(1)]  # flat: the classifier gets too many inputs
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(width, data.classes))


def search_space(trial):
    width = trial.suggest_int("width", 4, 32)
    flat = trial.suggest_categorical("flat", [False, True])
    rate = trial.suggest_float("learning_rate", LOWEST, 0.5, log=True)
    network = CustomNetwork(arguments={"width": width, "flat": flat})
    return Config(architecture=network, optimizer=SGD(learning_rate=rate), batch_size=64)
"""


def definition(replaced: str = "", by: str = ""):
    assert replaced in FILE
    Path("net.py").write_text(FILE.replace(replaced, by))
    return load_definition("./net.py")


def test_a_bug_in_one_branch_fails_its_trials_and_the_search_goes_on_in_the_others():
    run_study(20, definition())
    trials = stored().trials
    assert Counter(trial.outcome for trial in trials if not trial.params["flat"]).keys() <= {
        "complete",
        "pruned",
        "duplicate",
    }
    failed = [trial for trial in trials if trial.params["flat"]]
    assert 1 <= len(failed) < 20 / 2  # the sampler learns to leave it out
    for trial in failed:
        assert (trial.outcome, trial.failure["kind"]) == ("failed", "network")
        assert all(part in trial.failure["message"] for part in ("flat=True", "net.py", "RuntimeError"))
    assert sum(trial.outcome in ("complete", "pruned") for trial in trials) == 20


def test_interrupted_and_resumed_it_is_the_same_study():
    run_study(4, definition(), path="whole.db")
    run_study(2, definition(), path="parts.db")
    run_study(4, definition(), path="parts.db")
    assert facts(stored("parts.db")) == facts(stored("whole.db"))


@pytest.mark.parametrize(("replaced", "by"), [("nn.ReLU()", "nn.GELU()"), ("[False, True]", "[False]")])
def test_a_study_whose_network_or_search_space_has_changed_does_not_go_on(replaced, by):
    run_study(1, definition())
    before = facts(stored())
    with pytest.raises(UsageError, match="search space"):
        run_study(2, definition(replaced, by))
    assert facts(stored()) == before


def test_a_search_in_which_no_network_can_be_built_says_so_before_it_begins():
    broken = definition("[] if flat else [nn.AdaptiveAvgPool2d(1)]", "[]")
    with pytest.raises(NetworkError, match=r"net\.py"):
        typical_config(broken, 10**9)
    assert typical_config(definition(), 10**9).architecture.arguments["flat"] is False


def test_a_function_that_the_file_lacks_is_named():
    lacking = definition("CustomNetwork(arguments", 'CustomNetwork(function="other", arguments')
    with pytest.raises(UsageError, match="other"):
        typical_config(lacking, 10**9)
