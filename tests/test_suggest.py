"""Suggestions that search spaces share: which parameters they ask for, and where study files find them."""

from optuna.trial import FixedTrial

from mc1opt import suggest
from mc1opt.config import MLP, SGD, AdamW, Augmentation, Config, ConvBlock, ConvNet, OneCycle


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


def test_switches_are_those_that_were_suggested() -> None:
    config = Config(architecture=MLP(layers=()), optimizer=SGD(learning_rate=0.1), batch_size=10)
    unchanged = {"logit_scale": 1.0, "alternating_flip": False, "weight_averaging": 0.0}
    assert suggest.suggest_switches(FixedTrial(unchanged), config) == config
    flipped = config.model_copy(update={"augmentation": Augmentation(flip=True)})
    assert suggest.suggest_switches(FixedTrial(unchanged), flipped) == flipped
    network = ConvNet(blocks=(ConvBlock(width=4),))
    later = {"logit_scale": 0.1, "identity_initialisation": True}
    switched = suggest.suggest_switches(
        FixedTrial({"alternating_flip": True, "weight_averaging": 0.3, **later}),
        flipped.model_copy(update={"architecture": network}),
    )
    assert switched.augmentation == Augmentation(flip="alternating")
    assert switched.weight_averaging == 0.3
    assert switched.architecture == network.model_copy(update=later)
