"""The search space around the published models 8 to 11. Networks are built without memory: they are large."""

from typing import Any

import optuna
import pytest
import torch
from optuna.trial import FixedTrial, FrozenTrial

from mc1opt.config import Config, ConvNet, config_from_json, config_id, config_to_json
from mc1opt.models.build import build_model
from mc1opt.models.cost import cost
from mc1opt.presets import get_preset
from mc1opt.search.definition import load_definition
from tests.studies.test_definitions import other_value

SAMPLES = 200
DEFINITION = load_definition("published")


@pytest.fixture(scope="module")
def drawn() -> list[tuple[FrozenTrial, Config]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    samples = []
    for _ in range(SAMPLES):
        trial = study.ask()
        config = DEFINITION.config(trial)
        samples.append((study.tell(trial, 0.0), config))
    return samples


@pytest.mark.parametrize("name", ["cnn-deep", "cnn-deep-adjusted", "cnn-deep-batchnorm", "cnn-deep-adam"])
def test_published_models_8_to_11_lie_in_the_search_space(name: str) -> None:
    assert DEFINITION.config(FixedTrial(dict(DEFINITION.presets[name]))) == get_preset(name).config


def test_published_models_are_the_starting_points_and_affordable() -> None:
    assert dict(DEFINITION.starting_points) == dict(DEFINITION.presets)
    for params in DEFINITION.starting_points.values():
        config = DEFINITION.config(FixedTrial(dict(params)))
        assert cost(config.architecture).macs <= DEFINITION.max_macs


def test_every_sample_builds_and_gives_logits(drawn: list[tuple[FrozenTrial, Config]]) -> None:
    image = torch.zeros(1, 3, 32, 32, device="meta")
    for _, config in drawn[:12]:
        with torch.device("meta"):
            model = build_model(config.architecture).eval()
        assert model(image).shape == (1, 10)


def test_every_sample_survives_json(drawn: list[tuple[FrozenTrial, Config]]) -> None:
    assert all(config_from_json(config_to_json(config)) == config for _, config in drawn)


def test_changing_any_one_parameter_changes_the_id(drawn: list[tuple[FrozenTrial, Config]]) -> None:
    for trial, config in drawn[:20]:
        for name, distribution in trial.distributions.items():
            changed: dict[str, Any] = dict(trial.params)
            changed[name] = other_value(distribution, trial.params[name])
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=2))
            study.enqueue_trial(changed)
            assert config_id(DEFINITION.config(study.ask())) != config_id(config), name


def test_most_networks_are_affordable(drawn: list[tuple[FrozenTrial, Config]]) -> None:
    affordable = sum(cost(config.architecture).macs <= DEFINITION.max_macs for _, config in drawn)
    assert affordable >= 0.9 * SAMPLES


def test_widths_stay_within_those_of_the_published_models(drawn: list[tuple[FrozenTrial, Config]]) -> None:
    for _, config in drawn:
        assert isinstance(config.architecture, ConvNet)
        for block, widest in zip(config.architecture.blocks, (64, 128, 256, 256), strict=True):
            assert widest // 4 <= block.width <= widest
        (head,) = config.architecture.head
        assert 256 <= head.width <= 4096
