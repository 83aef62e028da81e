"""Suggestions that search spaces share: which parameters they ask for, and where study files find them."""

import pytest
from optuna.trial import FixedTrial

from mc1opt import suggest
from mc1opt.config import MLP, SGD, AdamW, Augmentation, Config, ConvBlock, ConvNet, Muon, OneCycle


def test_only_the_parameters_of_the_chosen_kind_are_asked_for() -> None:
    sgd = {
        "optimizer": "sgd",
        "sgd_momentum_kind": "none",
        "sgd_learning_rate": 0.1,
        "use_weight_decay": False,
    }
    assert suggest.suggest_optimizer(FixedTrial(sgd)) == SGD(learning_rate=0.1)
    adamw = {"optimizer": "adamw", "adam_learning_rate": 0.001, "adam_beta2": 0.95, "use_weight_decay": True}
    expected = AdamW(learning_rate=0.001, beta2=0.95, weight_decay=0.1)
    assert suggest.suggest_optimizer(FixedTrial({**adamw, "adamw_weight_decay": 0.1})) == expected


def test_muon_is_suggested_only_where_it_is_asked_for() -> None:
    muon = {"optimizer": "muon", "muon_learning_rate": 0.02, "muon_sgd_learning_rate": 0.1}
    trial = FixedTrial(muon | {"muon_momentum": 0.9, "use_weight_decay": True, "muon_weight_decay": 0.01})
    expected = Muon(learning_rate=0.02, sgd_learning_rate=0.1, momentum=0.9, weight_decay=0.01)
    assert suggest.suggest_optimizer(trial, muon=True) == expected
    with pytest.raises(ValueError, match="muon"):
        suggest.suggest_optimizer(trial)
    adam = {"optimizer": "adam", "adam_learning_rate": 0.01, "adam_beta2": 0.9, "use_weight_decay": False}
    trials = [FixedTrial(adam) for _ in range(2)]
    suggest.suggest_optimizer(trials[0])
    suggest.suggest_optimizer(trials[1], muon=True)
    choices = [trial.distributions["optimizer"].choices for trial in trials]
    assert choices == [("sgd", "adam", "adamw"), ("sgd", "adam", "adamw", "muon")]


def test_each_block_has_its_own_choice_of_a_residual_pair() -> None:
    blocks = [ConvBlock(width=4), ConvBlock(width=8, norm="batch")]
    trial = FixedTrial({"conv1_residual": False, "conv2_residual": True})
    expected = [ConvBlock(width=4), ConvBlock(width=8, norm="batch", residual=True)]
    assert suggest.suggest_residual(trial, blocks) == expected


def test_schedule_and_augmentation_are_what_was_suggested() -> None:
    cycle = FixedTrial({"schedule": "one_cycle", "one_cycle_warmup": 0.2})
    assert suggest.suggest_schedule(cycle) == OneCycle(warmup=0.2)
    augmentation = suggest.suggest_augmentation(FixedTrial({"flip": True, "crop": 2, "cutout": 8}))
    assert augmentation == Augmentation(flip=True, crop=2, cutout=8)


def test_switches_are_those_that_were_suggested_and_that_the_config_can_have() -> None:
    network = ConvNet(blocks=(ConvBlock(width=4),), global_pooling="max")
    sgd = SGD(learning_rate=0.1)
    config = Config(architecture=network, optimizer=sgd, batch_size=10, augmentation=Augmentation(flip=True))
    mlp = Config(architecture=MLP(layers=()), optimizer=sgd, batch_size=10)
    off = {"logit_scale": 1.0, "weight_averaging": 0.0}
    assert suggest.suggest_switches(FixedTrial(off), mlp) == mlp
    off |= {"identity_initialisation": False, "alternating_flip": False}
    shrinking = network.model_copy(update={"blocks": (ConvBlock(width=4, kernel_size=11),) * 2})
    for other in (shrinking, network.model_copy(update={"global_pooling": "none"})):
        without = config.model_copy(update={"architecture": other})
        assert suggest.suggest_switches(FixedTrial(off), without) == without
    assert suggest.suggest_switches(FixedTrial({**off, "progressive_size": 32}), config) == config
    on = {"logit_scale": 0.1, "weight_averaging": 0.3, "progressive_size": 24}
    on |= {"identity_initialisation": True, "alternating_flip": True}
    switched = suggest.suggest_switches(FixedTrial(on), config)
    assert (switched.weight_averaging, switched.progressive_size) == (0.3, 24)
    assert switched.augmentation == Augmentation(flip="alternating")
    later = {"logit_scale": 0.1, "identity_initialisation": True}
    assert switched.architecture == network.model_copy(update=later)
