"""The shipped study definitions, each with random samples, and the published models that lie in them."""

from collections import defaultdict
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FixedTrial, FrozenTrial

from mc1opt.config import Config, ConvNet, config_from_json, config_id, config_to_json
from mc1opt.dataset import CIFAR10_DATA, CIFAR10_SHAPE
from mc1opt.models.build import build_model
from mc1opt.models.cost import cost
from mc1opt.presets import PRESETS, get_preset
from mc1opt.search.definition import StudyDefinition, load_definition
from mc1opt.search.study import space_fingerprint

SAMPLES = 100


def samples(definition: StudyDefinition) -> list[tuple[FrozenTrial, Config]]:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    drawn = []
    for _ in range(SAMPLES):
        trial = study.ask()
        config = definition.config(trial)
        drawn.append((study.tell(trial, 0.0), config))
    return drawn


@pytest.fixture(scope="module", params=["mlp", "cnn", "cnn_large", "published"])
def definition(request: pytest.FixtureRequest) -> StudyDefinition:
    return load_definition(request.param)


@pytest.fixture(scope="module")
def drawn(definition: StudyDefinition) -> list[tuple[FrozenTrial, Config]]:
    return samples(definition)


def test_samples_build_and_give_logits(drawn: list[tuple[FrozenTrial, Config]]) -> None:
    for _, config in drawn[::3]:
        with torch.device("meta"):  # without memory: those of "published" are large
            model = build_model(config.architecture, CIFAR10_SHAPE).eval()
            assert model(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_every_sample_survives_json(drawn: list[tuple[FrozenTrial, Config]]) -> None:
    assert all(config_from_json(config_to_json(config)) == config for _, config in drawn)


def test_every_choice_occurs(drawn: list[tuple[FrozenTrial, Config]]) -> None:
    seen: dict[str, set[Any]] = defaultdict(set)
    choices: dict[str, set[Any]] = {}
    for trial, _ in drawn:
        for name, distribution in trial.distributions.items():
            seen[name].add(trial.params[name])
            if isinstance(distribution, CategoricalDistribution):
                choices[name] = set(distribution.choices)
    for name, all_choices in choices.items():
        # A conditional parameter of few samples is another matter than a choice that cannot occur.
        if sum(name in trial.params for trial, _ in drawn) >= 30:
            assert seen[name] == all_choices, name


def other_value(distribution: Any, value: Any) -> Any:
    """A value next to the given one that the distribution allows."""
    if isinstance(distribution, CategoricalDistribution):
        return next(choice for choice in distribution.choices if choice != value)
    if isinstance(distribution, IntDistribution):
        return value + distribution.step if value < distribution.high else value - distribution.step
    assert isinstance(distribution, FloatDistribution)
    if (distribution.low, distribution.high) == (0.0, 1.0):  # a share, of which many give the same width
        return 0.0 if value > 0.5 else 1.0
    middle = (distribution.low + distribution.high) / 2
    return (value + (middle if value != middle else distribution.high)) / 2


def test_changing_any_one_parameter_changes_the_id(
    definition: StudyDefinition, drawn: list[tuple[FrozenTrial, Config]]
) -> None:
    for trial, config in drawn[:4]:
        for name, distribution in trial.distributions.items():
            changed = dict(trial.params) | {name: other_value(distribution, trial.params[name])}
            # A changed choice may call for parameters that were not drawn; they don't matter here.
            study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=2))
            study.enqueue_trial(changed)
            assert config_id(definition.config(study.ask())) != config_id(config), name


def test_most_networks_are_affordable_on_a_cpu(
    definition: StudyDefinition, drawn: list[tuple[FrozenTrial, Config]]
) -> None:
    affordable = sum(
        cost(config.architecture, CIFAR10_SHAPE).macs <= definition.max_macs for _, config in drawn
    )
    assert affordable >= 0.8 * SAMPLES


@pytest.mark.filterwarnings("ignore:.*has no effect")  # poolings of small images
@pytest.mark.parametrize(("channels", "size", "classes"), [(1, 8, 2), (3, 16, 5), (1, 28, 10), (3, 64, 1000)])
@pytest.mark.parametrize("name", ["cnn", "mlp"])
def test_they_serve_any_images(name: str, channels: int, size: int, classes: int) -> None:
    names = tuple(map(str, range(classes)))
    data = CIFAR10_DATA.model_copy(update={"channels": channels, "size": size, "class_names": names})
    definition = load_definition(name).on(data)
    assert space_fingerprint(definition) != space_fingerprint(load_definition(name))
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    macs = [cost(definition.config(study.ask()).architecture, data.shape).macs for _ in range(30)]
    assert sum(each <= definition.max_macs for each in macs) >= 24


def test_sizes_stay_within_the_promised_ranges(
    definition: StudyDefinition, drawn: list[tuple[FrozenTrial, Config]]
) -> None:
    for _, config in drawn:
        architecture = config.architecture
        if definition.name == "cnn_large":
            assert isinstance(architecture, ConvNet)
            assert 64 <= config.batch_size <= 1024
            assert {block.width % 32 for block in architecture.blocks} == {0}
            continue
        assert 20 <= config.batch_size <= 512
        if definition.name == "published":
            assert isinstance(architecture, ConvNet)
            for block, widest in zip(architecture.blocks, (64, 128, 256, 256), strict=True):
                assert widest // 4 <= block.width <= widest
            (head,) = architecture.head
            assert 256 <= head.width <= 4096
            continue
        if isinstance(architecture, ConvNet):
            assert all(4 <= block.width <= 256 for block in architecture.blocks)
            # What a convolution computes at once is used whole.
            assert all(block.width <= 12 or block.width % 16 == 0 for block in architecture.blocks)
        layers = architecture.head if isinstance(architecture, ConvNet) else architecture.layers
        assert all(32 <= layer.width <= 1024 for layer in layers)


def test_published_models_lie_in_the_search_spaces() -> None:
    lying = []
    for definition in map(load_definition, ("mlp", "cnn", "published")):
        for name, params in definition.presets.items():
            assert definition.config(FixedTrial(dict(params))) == get_preset(name).config
            lying.append(name)
    assert lying == list(PRESETS)


def test_starting_points_fit_the_search_space(definition: StudyDefinition) -> None:
    for params in definition.starting_points.values():
        config = definition.config(FixedTrial(dict(params)))
        assert cost(config.architecture, CIFAR10_SHAPE).macs <= definition.max_macs


def test_the_published_study_starts_with_its_published_models() -> None:
    definition = load_definition("published")
    assert dict(definition.starting_points) == dict(definition.presets)
