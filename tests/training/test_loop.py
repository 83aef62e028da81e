"""The training loop: what repeats bit for bit, what is learnt, how it fails, and what it leaves behind."""

import copy
import dataclasses
import itertools
import json
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from mc1opt.config import (
    MLP,
    SGD,
    Adam,
    AdamW,
    Augmentation,
    Constant,
    ConvBlock,
    ConvNet,
    Cosine,
    LinearLayer,
    Muon,
    OneCycle,
    config_from_json,
)
from mc1opt.data.images import open_training_images
from mc1opt.dataset import CIFAR10_SHAPE, DataSet
from mc1opt.models.build import build_model
from mc1opt.models.whitening import whitening_filters
from mc1opt.seeds import derive_seed
from mc1opt.spec import EpochResult, Fidelity, Fold, Training, TrainingFailed
from mc1opt.training import loop
from mc1opt.training.accuracy import accuracy
from mc1opt.training.checkpoint import load_weights
from mc1opt.training.loop import Trainer, new_model, train
from mc1opt.training.optim import learning_rate_factor
from mc1opt.training.tensor_file import read_tensors, write_tensors
from tests.support.images import (
    ALL_AUGMENTATION,
    IMAGES,
    SMALL_CONVNET,
    SMALL_MLP,
    VALIDATION_IMAGES,
    small_training,
    write_images,
)

ROOT = Path(__file__).parents[2]

Outcome = tuple[list[tuple[int, float, float]], dict[str, Tensor]]


def numbers(results: list[EpochResult]) -> list[tuple[int, float, float]]:
    """The curve: everything of the results but the seconds."""
    return [(result.epoch, result.loss, result.validation_accuracy) for result in results]


def outcome(training: Training) -> Outcome:
    """Curve and weights of a training."""
    path = Path("outcome.safetensors").absolute()
    results = list(train(training.model_copy(update={"weights": str(path)})))
    return numbers(results), load_file(path)


def equal(first: Outcome, second: Outcome) -> bool:
    """Bit for bit."""
    curves, weights = zip(first, second, strict=True)
    return (
        curves[0] == curves[1]
        and weights[0].keys() == weights[1].keys()
        and all(torch.equal(tensor, weights[1][name]) for name, tensor in weights[0].items())
    )


def trained_inputs(trainer: Trainer) -> list[Tensor]:
    """A list to which each batch that the network is trained on is added."""
    batches = []

    def look(module: nn.Module, inputs: tuple[Tensor]) -> None:
        if module.training:
            batches.append(inputs[0].clone())

    trainer.model.register_forward_pre_hook(look)
    return batches


# ---- The same training twice -----------------------------------------------------------------------------

MUON = Muon(learning_rate=0.02, sgd_learning_rate=0.05, weight_decay=0.01)
# Each with dropout and augmentation.
REPEATED = {
    "mlp": {"optimizer": AdamW(learning_rate=0.01)},
    "convnet": {"architecture": SMALL_CONVNET},
    "averaged convnet": {"architecture": SMALL_CONVNET, "weight_averaging": 0.6},
    "smaller images": {"architecture": SMALL_CONVNET, "progressive_size": 20},
    "alternating flip": {"augmentation": Augmentation(flip="alternating", crop=2)},
    "convnet in bfloat16": {"architecture": SMALL_CONVNET, "precision": "bfloat16"},
    "convnet with muon": {"architecture": SMALL_CONVNET, "optimizer": MUON},
}


def repeated(data: DataSet, name: str, **changes: object) -> Training:
    fields = {"augmentation": ALL_AUGMENTATION, "schedule": OneCycle(), **REPEATED[name]}
    return small_training(data, **fields, **changes)


@pytest.mark.parametrize("name", REPEATED)
def test_the_same_training_gives_the_same_curve_and_weights_whatever_was_drawn_before(data, name):
    first = outcome(repeated(data, name))
    torch.manual_seed(99)
    assert equal(outcome(repeated(data, name)), first)


@pytest.mark.parametrize("name", REPEATED)
def test_another_seed_gives_another_curve_and_other_weights(data, name):
    (curve, weights), (other_curve, others) = (outcome(repeated(data, name, seed=seed)) for seed in (1, 2))
    assert all(a[1] != b[1] for a, b in zip(curve, other_curve, strict=True))
    assert not torch.equal(weights["classifier.weight"], others["classifier.weight"])


@pytest.mark.slow
def test_another_process_gives_the_same_curve_and_weights(data):
    trainings = {name: repeated(data, name) for name in REPEATED}
    lines = [
        training.model_copy(update={"weights": str(Path(f"{name}.safetensors").absolute())}).model_dump_json()
        for name, training in trainings.items()
    ]
    code = (
        "import sys\n"
        "from mc1opt.spec import Training\n"
        "from mc1opt.training.loop import train\n"
        "for line in sys.stdin:\n"
        "    for result in train(Training.model_validate_json(line)):\n"
        "        print(result.model_dump_json())\n"
    )
    process = subprocess.run(
        [sys.executable, "-c", code],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    results = [EpochResult.model_validate_json(line) for line in process.stdout.splitlines()]
    for name, training in trainings.items():
        own = [results.pop(0) for _ in range(training.fidelity.epochs)]
        assert equal((numbers(own), load_file(f"{name}.safetensors")), outcome(training)), name
    assert results == []


# ---- Learning --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("precision", "optimizer"),
    [
        ("float32", SGD(learning_rate=0.05, momentum=0.9, nesterov=True)),
        ("float32", Adam(learning_rate=0.01)),
        ("bfloat16", AdamW(learning_rate=0.01)),
        ("float32", MUON),
        ("bfloat16", MUON),
    ],
    ids=["sgd", "adam", "adamw in bfloat16", "muon", "muon in bfloat16"],
)
@pytest.mark.parametrize("architecture", [SMALL_MLP, SMALL_CONVNET], ids=["mlp", "convnet"])
def test_easy_images_are_learnt(data, architecture, optimizer, precision):
    training = small_training(
        data, epochs=4, architecture=architecture, optimizer=optimizer, precision=precision, batch_size=32
    )
    results = list(train(training))
    assert results[-1].validation_accuracy > 0.6  # chance is 0.1
    assert results[-1].loss < 0.75 * results[0].loss


@pytest.mark.parametrize(
    "architecture",
    [
        MLP(layers=(LinearLayer(width=16, norm="batch"),)),
        ConvNet(blocks=(ConvBlock(width=6, kernel_size=5, stride=3, norm="batch"), ConvBlock(width=6))),
    ],
    ids=["mlp", "convnet"],
)
def test_a_training_is_what_plain_pytorch_makes_of_it(data, architecture):
    rate, decay, smoothing = 0.05, 0.02, 0.1
    training = small_training(
        data,
        epochs=3,
        architecture=architecture,
        optimizer=SGD(learning_rate=rate, momentum=0.9, nesterov=True, weight_decay=decay),
        schedule=OneCycle(warmup=0.3, start=0.2, end=0.05),
        label_smoothing=smoothing,
    )
    curve, weights = outcome(training)

    images = open_training_images(data, 300, "cpu")
    torch.manual_seed(derive_seed(training.seed, "initialisation"))
    model = new_model(training, images)
    decayed = [parameter for name, parameter in model.named_parameters() if is_matrix_or_filter(model, name)]
    others = [
        parameter for name, parameter in model.named_parameters() if not is_matrix_or_filter(model, name)
    ]
    optimizer = torch.optim.SGD(
        [{"params": decayed, "weight_decay": decay}, {"params": others}],
        lr=rate,
        momentum=0.9,
        nesterov=True,
        fused=False,
    )
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer,
        rate,
        total_steps=3 * 4,
        pct_start=0.3,
        anneal_strategy="linear",
        cycle_momentum=False,
        div_factor=1 / 0.2,
        final_div_factor=0.2 / 0.05,
    )
    expected = []
    for epoch in range(3):
        generator = torch.Generator().manual_seed(derive_seed(training.seed, "epoch", epoch))
        order = torch.randperm(300, generator=generator)
        losses = []
        model.train()
        for batch in order[:256].split(64):
            logits = model(images.train_images[batch])
            loss = F.cross_entropy(logits, images.train_labels[batch], label_smoothing=smoothing)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            scheduler.step()
            losses.append(loss.item())
        model.eval()
        correct = model(images.validation_images).argmax(1) == images.validation_labels
        expected.append((epoch, sum(losses) / 4, correct.float().mean().item()))

    for (epoch, loss, share), (expected_epoch, expected_loss, expected_share) in zip(
        curve, expected, strict=True
    ):
        assert epoch == expected_epoch
        assert loss == pytest.approx(expected_loss, rel=1e-4)
        assert share == pytest.approx(expected_share, abs=1e-6)
    for name, tensor in model.state_dict().items():
        torch.testing.assert_close(weights[name], tensor.contiguous(), rtol=1e-3, atol=1e-4)


def test_averaged_weights_are_the_mean_over_the_last_steps_and_what_is_validated_and_stored(data):
    fields = {"architecture": SMALL_CONVNET, "epochs": 4, "schedule": OneCycle()}
    curve, weights = outcome(small_training(data, weight_averaging=0.6, **fields))
    trainer = Trainer(small_training(data, **fields))
    states = []
    trainer.optimizer.register_step_post_hook(
        lambda *_: states.append(copy.deepcopy(trainer.model.state_dict()))
    )
    plain = [trainer.train_epoch(epoch) for epoch in range(4)]
    assert len(states) == 16
    last = states[7:]  # the first after 0.4 of the steps, 6.4, counted from 0
    mean = {name: torch.stack([s[name] for s in last]).double().mean(0) for name in last[0]}
    for name, tensor in weights.items():
        if tensor.is_floating_point():
            torch.testing.assert_close(tensor, mean[name].float(), rtol=1e-4, atol=1e-5)
    assert [loss for _, loss, _ in curve] == [result.loss for result in plain]
    assert curve[0] == numbers(plain)[0]
    load_weights(trainer.model, Path("outcome.safetensors"))
    images = trainer.images
    assert curve[-1][2] == accuracy(trainer.model, images.validation_images, images.validation_labels)
    assert not torch.equal(weights["classifier.weight"], states[-1]["classifier.weight"])


def is_matrix_or_filter(model: nn.Module, name: str) -> bool:
    """Whether a parameter is the weight of a linear layer or a convolution."""
    owner, _, kind = name.rpartition(".")
    return kind == "weight" and isinstance(model.get_submodule(owner), nn.Linear | nn.Conv2d)


@pytest.mark.parametrize("schedule", [Constant(), Cosine(), OneCycle()], ids=lambda schedule: schedule.kind)
def test_each_step_has_the_learning_rate_of_the_schedule(data, schedule):
    training = small_training(data, epochs=3, schedule=schedule, optimizer=SGD(learning_rate=0.05))
    trainer = Trainer(training)
    rates = []
    trainer.optimizer.register_step_pre_hook(
        lambda optimizer, *_: rates.append({group["lr"] for group in optimizer.param_groups})
    )
    for epoch in range(3):
        trainer.train_epoch(epoch)

    steps = 3 * (300 // 64)
    expected = [0.05 * learning_rate_factor(schedule, step, steps) for step in range(steps)]
    assert all(len(groups) == 1 for groups in rates)
    assert [rate for groups in rates for rate in groups] == pytest.approx(expected, rel=1e-9)


def test_an_alternating_flip_shows_each_image_in_turn_as_it_is_and_mirrored(data):
    training = small_training(data, epochs=3, batch_size=300, augmentation=Augmentation(flip="alternating"))
    trainer = Trainer(training)
    batches = trained_inputs(trainer)
    for epoch in range(3):
        trainer.train_epoch(epoch)
    first, second, third = ({image.numpy().tobytes() for image in batch.contiguous()} for batch in batches)
    images = {image.numpy().tobytes() for image in trainer.images.train_images.contiguous()}
    assert second == {image.numpy().tobytes() for image in batches[0].flip(3).contiguous()}
    assert third == first
    assert 120 < len(first & images) < 180


def test_images_are_smaller_in_the_first_half_of_the_epochs_of_training_alone(data):
    trainer = Trainer(small_training(data, epochs=5, architecture=SMALL_CONVNET, progressive_size=20))
    sizes = []
    trainer.model.register_forward_pre_hook(
        lambda module, inputs: sizes.append((module.training, inputs[0].shape[-1]))
    )
    seen = []
    for epoch in range(5):
        sizes.clear()
        trainer.train_epoch(epoch)
        seen.append(set(sizes))
    assert seen == [{(True, 20), (False, 32)}] * 2 + [{(True, 32), (False, 32)}] * 3


def test_bfloat16_computes_in_it_and_keeps_weights_and_loss_in_float32(data):
    trainer = Trainer(small_training(data, architecture=SMALL_CONVNET, precision="bfloat16"))
    seen = []
    for module in trainer.model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            module.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    trainer.train_epoch(0)
    assert set(seen) == {torch.bfloat16}
    assert {tensor.dtype for tensor in trainer.model.parameters()} == {torch.float32}
    loss = trainer._step(torch.arange(64), torch.Generator().manual_seed(0))
    assert loss.dtype == torch.float32


# ---- Batches in parts ------------------------------------------------------------------------------------

PLAIN_MLP = MLP(layers=(LinearLayer(width=16),))  # nothing in it sees a whole batch


@pytest.mark.parametrize("batch_size", [50, 7])
def test_accumulated_gradients_train_as_whole_batches_do(data, batch_size):
    fields = {
        "architecture": PLAIN_MLP,
        "optimizer": SGD(learning_rate=0.003, momentum=0.9),
        "augmentation": ALL_AUGMENTATION,
        "batch_size": batch_size,
    }
    (whole, weights), (parts, others) = (
        outcome(small_training(data, epochs=3, label_smoothing=0.1, accumulation=accumulation, **fields))
        for accumulation in (1, 3)
    )
    for (_, loss, share), (_, other_loss, other_share) in zip(whole, parts, strict=True):
        assert loss == pytest.approx(other_loss, rel=1e-4)
        assert share == pytest.approx(other_share, abs=0.02)
    for name, tensor in weights.items():
        torch.testing.assert_close(tensor, others[name], rtol=1e-3, atol=1e-5)


def test_parts_of_a_batch_go_through_the_network_one_after_the_other_with_one_step_for_all(data):
    trainer = Trainer(small_training(data, batch_size=50, accumulation=4, epochs=1))
    batches = trained_inputs(trainer)
    steps = []
    trainer.optimizer.register_step_pre_hook(lambda *_: steps.append(len(batches)))
    trainer.train_epoch(0)
    assert [len(batch) for batch in batches] == [13, 13, 12, 12] * 6
    assert steps == [4, 8, 12, 16, 20, 24]
    whole = trained_inputs(plain := Trainer(small_training(data, batch_size=50, epochs=1)))
    plain.train_epoch(0)
    assert torch.equal(torch.cat(batches), torch.cat(whole))


def test_validation_is_in_smaller_parts_too(data):
    trainer = Trainer(small_training(data, accumulation=20, epochs=1))
    sizes = []
    trainer.model.register_forward_pre_hook(
        lambda module, inputs: None if module.training else sizes.append(len(inputs[0]))
    )
    trainer.train_epoch(0)
    assert sizes == [25] * 4


# ---- Which images ----------------------------------------------------------------------------------------


def test_an_epoch_sees_each_image_at_most_once_and_leaves_the_last_smaller_batch_out(data):
    trainer = Trainer(small_training(data, batch_size=64))
    batches = trained_inputs(trainer)
    for epoch in range(2):
        trainer.train_epoch(epoch)
    assert [len(batch) for batch in batches] == [64] * 8  # of 300 images, twice 4 batches
    known = {image.numpy().tobytes(): number for number, image in enumerate(trainer.images.train_images)}
    epochs = [
        [known[image.numpy().tobytes()] for batch in batches[first : first + 4] for image in batch]
        for first in (0, 4)
    ]
    assert all(len(set(epoch)) == 256 for epoch in epochs)
    assert set(epochs[0]) != set(epochs[1])  # other images are left out
    assert epochs[0] != sorted(epochs[0])


@pytest.mark.parametrize("batch_size", [301, 8192])
def test_a_batch_larger_than_the_training_set_is_all_of_it(data, batch_size):
    assert equal(
        outcome(small_training(data, batch_size=batch_size)), outcome(small_training(data, batch_size=300))
    )


def test_validation_and_unused_images_do_not_change_what_is_learnt(tmp_path):
    data = write_images(tmp_path)
    training = small_training(
        data, train_images=200, architecture=SMALL_CONVNET, augmentation=ALL_AUGMENTATION
    )
    curve, weights = outcome(training)
    images = np.load(tmp_path / "train_images.npy")
    used = {
        image.contiguous().numpy().tobytes() for image in open_training_images(data, 200, "cpu").train_images
    }
    unused = [number for number, image in enumerate(images) if image.tobytes() not in used]
    assert len(unused) == IMAGES - 200
    images[unused] = 255
    # Under another name, as other images have in the cache: a process opens the same images once.
    other = tmp_path.with_name("other")
    tmp_path.rename(other)
    np.save(other / "train_images.npy", images)
    training = training.model_copy(update={"data": data.model_copy(update={"folder": str(other)})})
    other_curve, others = outcome(training)
    assert [loss for _, loss, _ in other_curve] == [loss for _, loss, _ in curve]
    assert [share for _, _, share in other_curve] != [share for _, _, share in curve]
    assert equal(([], weights), ([], others))


def test_the_validation_accuracy_is_that_of_the_validation_images(data):
    training = small_training(data, epochs=1, weights=str(Path("w.safetensors").absolute()))
    (result,) = train(training)
    model = build_model(training.config.architecture, CIFAR10_SHAPE)
    load_weights(model, Path("w.safetensors"))
    images = open_training_images(data, 300, "cpu")
    assert len(images.validation_images) == VALIDATION_IMAGES
    share = accuracy(model, images.validation_images, images.validation_labels)
    assert result.validation_accuracy == share
    assert share != accuracy(model, images.train_images, images.train_labels)


def test_unused_images_validate_a_part_of_them_before_the_last_epoch(data):
    fidelity = Fidelity(train_images=180, epochs=2, validation="unused")
    training = small_training(data).model_copy(update={"fidelity": fidelity})
    assert training.unused_images == 108  # 0.3 x 180 x 2, of 400 - 100 - 180 = 120
    unused = open_training_images(data, IMAGES - VALIDATION_IMAGES, "cpu")
    images, labels = unused.train_images[180:], unused.train_labels[180:]
    trainer = Trainer(training)
    for epoch, count in enumerate([VALIDATION_IMAGES, 108]):
        result = trainer.train_epoch(epoch)
        assert result.validation_accuracy == accuracy(trainer.model, images[:count], labels[:count])
    held_out = small_training(data, train_images=180)
    assert [result.loss for result in train(held_out)] == [result.loss for result in train(training)]


def test_mean_and_std_are_those_of_the_training_images(data):
    images = open_training_images(data, 200, "cpu")
    state = new_model(small_training(data, train_images=200), images).state_dict()
    pixels = images.train_images.numpy().astype(np.float64)
    for name, expected in (
        ("mean", pixels.mean((0, 2, 3))),
        ("std", pixels.std((0, 2, 3), ddof=1)),
    ):
        np.testing.assert_allclose(state[f"normalisation.{name}"].numpy(), expected, rtol=1e-5)


def test_symmetric_normalisation_makes_black_minus_one_and_white_one(data):
    images = open_training_images(data, 200, "cpu")
    model = new_model(small_training(data, train_images=200, normalisation="symmetric"), images)
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 32, 32)
    seen = model.normalisation(black_and_white)
    assert torch.equal(seen, torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 3, 32, 32))


@pytest.mark.parametrize("normalisation", ["channels", "symmetric"])
def test_whitening_filters_decorrelate_the_trainings_own_images_and_are_stored(data, normalisation):
    training = small_training(data, architecture=SMALL_CONVNET, normalisation=normalisation)
    _, weights = outcome(training)
    images = open_training_images(data, 300, "cpu").train_images.float()
    mean, std = (weights[f"normalisation.{name}"][:, None, None] for name in ("mean", "std"))
    filters = weights["stem.convolution.weight"]
    torch.testing.assert_close(filters, whitening_filters((images - mean) / std, 2))
    outputs = F.conv2d((images - mean) / std, filters[:12]).transpose(0, 1).flatten(1)
    torch.testing.assert_close(torch.cov(outputs), torch.eye(12), rtol=0.0, atol=0.02)


def test_a_channel_without_contrast_does_no_harm(tmp_path):
    data = write_images(tmp_path)
    images = np.load(tmp_path / "train_images.npy")
    images[:, 2] = 77
    np.save(tmp_path / "train_images.npy", images)
    training = small_training(data, epochs=4, architecture=SMALL_CONVNET, batch_size=32)
    assert list(train(training))[-1].validation_accuracy > 0.3


# ---- Failing ---------------------------------------------------------------------------------------------

DEEP_MLP = MLP(layers=(LinearLayer(width=64),) * 8)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"loss of epoch 0 is (nan|inf)"),
        # One step an epoch: its loss is that before the step, so that the logits overflow first.
        ({"epochs": 3, "batch_size": 300}, r"logits .* epoch 1"),
    ],
    ids=["loss", "logits"],
)
def test_what_is_not_finite_fails_the_training_as_diverged(data, changes, message):
    training = small_training(
        data,
        architecture=DEEP_MLP,
        optimizer=SGD(learning_rate=100.0),
        weights="w.safetensors",
        **changes,
    )
    with pytest.raises(TrainingFailed, match=message) as caught:
        list(train(training))
    assert caught.value.kind == "diverged"
    assert not Path("w.safetensors").exists()


def test_without_validation_the_weights_after_the_last_step_are_looked_at(data, monkeypatch):
    everything = data.model_copy(update={"validation_images": 0})
    step = Trainer._step

    def last_one_too_far(self, *arguments):
        loss = step(self, *arguments)
        with torch.no_grad():
            next(self.model.parameters()).view(-1)[0] = math.inf
        return loss

    monkeypatch.setattr(Trainer, "_step", last_one_too_far)
    training = small_training(everything, epochs=1, batch_size=everything.train_images)
    with pytest.raises(TrainingFailed, match=r"weights .* epoch 0") as caught:
        list(train(training))
    assert caught.value.kind == "diverged"


# ---- Results and weights ---------------------------------------------------------------------------------


def test_results_come_one_an_epoch_from_0_and_only_when_asked_for(data):
    epochs, drawn = [], []
    for result in train(small_training(data, epochs=3)):
        assert result.seconds > 0
        epochs.append(result.epoch)
        drawn.append(torch.get_rng_state())  # dropout's draws: all the same if all was trained at first
    assert epochs == [0, 1, 2]
    assert not any(torch.equal(before, after) for before, after in itertools.pairwise(drawn))


def test_closing_ends_the_training_and_leaves_no_file(data):
    results = train(resumed(data, weights="w.safetensors", checkpoint_seconds=3600.0))
    next(results)
    results.close()
    assert list(results) == []
    assert list(Path().iterdir()) == []


def test_weights_are_there_with_the_last_result_and_not_before(data):
    results = train(small_training(data, epochs=3, weights="folder/w.safetensors"))
    for _ in range(2):
        next(results)
        assert not Path("folder").exists()
    assert next(results).epoch == 2
    assert [path.name for path in Path("folder").iterdir()] == ["w.safetensors"]
    assert list(results) == []


def test_without_a_place_for_weights_nothing_is_written(data):
    list(train(small_training(data)))
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize("name", REPEATED)
def test_stored_weights_give_the_logits_of_the_trained_network(data, name):
    training = repeated(data, name)
    outcome(training)
    trainer = Trainer(training)
    for epoch in range(training.fidelity.epochs):
        trainer.train_epoch(epoch)
    loaded = build_model(training.config.architecture, CIFAR10_SHAPE)
    load_weights(loaded, Path("outcome.safetensors"))
    images = trainer.images.validation_images
    assert torch.equal(loaded.eval()(images), trainer.averaged.eval()(images))


def test_stored_weights_say_their_config_and_seed(data):
    training = repeated(data, "convnet", seed=7)
    outcome(training)
    with safe_open("outcome.safetensors", "pt") as file:
        metadata = file.metadata()
    assert config_from_json(json.loads(metadata["config"])) == training.config
    assert int(metadata["seed"]) == 7


def test_weights_that_cannot_be_written_fail_the_training_before_the_last_result(data):
    Path("w.safetensors").mkdir()
    results = train(small_training(data, epochs=2, weights="w.safetensors"))
    next(results)
    with pytest.raises(TrainingFailed, match=r"w\.safetensors .*Is a directory") as caught:
        next(results)
    assert caught.value.kind == "storage"


# ---- Going on from a checkpoint --------------------------------------------------------------------------

# Every kind of optimizer's state, and every kind of layer.
RESUMED = {**REPEATED, "plain sgd": {"optimizer": SGD(learning_rate=0.05)}}
CHECKPOINT = Path("c.checkpoint")


def resumed(data: DataSet, name: str = "mlp", **changes: object) -> Training:
    fields = {"epochs": 4, "checkpoint": str(CHECKPOINT.absolute()), "checkpoint_seconds": 0.0}
    options = {"augmentation": ALL_AUGMENTATION, "schedule": OneCycle(), **RESUMED[name]}
    return small_training(data, **(options | fields | changes))


def interrupt_after(training: Training, epochs: int) -> list[EpochResult]:
    """Trains so many epochs and a part of the next one, then the process is gone; what it had given."""
    results = train(training)
    given = [next(results) for _ in range(epochs)]
    results.gi_frame.f_locals["trainer"].train_epoch(epochs)
    return given


@pytest.mark.parametrize(
    ("name", "epochs"),
    [("mlp", 3), ("convnet", 1), ("convnet", 4), ("convnet in bfloat16", 2), ("plain sgd", 2)]
    + [("convnet with muon", 2)]
    + [("averaged convnet", epochs) for epochs in (1, 3)],
)
def test_a_training_goes_on_to_the_very_curve_and_weights_that_it_would_have_had(data, name, epochs):
    undisturbed = outcome(resumed(data, name, checkpoint=None))
    if epochs == 4:
        list(train(resumed(data, name)))  # all is trained, and it is not known yet
    else:
        given = interrupt_after(resumed(data, name), epochs)
    results = list(train(resumed(data, name)))
    if epochs < 4:  # with their seconds
        assert [result.model_copy(update={"restored": False}) for result in results[:epochs]] == given
    assert [result.restored for result in results] == [True] * epochs + [False] * (4 - epochs)
    again = outcome(resumed(data, name))  # from a second checkpoint, with the weights
    assert equal(again, undisturbed)
    assert numbers(results) == undisturbed[0]


@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_short_schedule_comes_first_and_the_long_one_begins_anew(data, epochs, monkeypatch):
    def training(**fields: object) -> Training:
        made = resumed(data, epochs=3, **fields)
        return made.model_copy(update={"fidelity": made.fidelity.model_copy(update={"short_epochs": 1})})

    factors = []
    with monkeypatch.context() as patch:
        patch.setattr(
            loop, "learning_rate_factor", lambda *given: factors.append(learning_rate_factor(*given)) or 1.0
        )
        list(train(training(checkpoint=None)))
    steps = len(factors) // 4
    schedules = [(step, steps) for step in range(steps)] + [(step, 3 * steps) for step in range(3 * steps)]
    assert factors == [learning_rate_factor(OneCycle(), *place) for place in schedules]

    undisturbed = outcome(training(checkpoint=None))
    assert undisturbed[0][:1] == numbers(train(resumed(data, epochs=1, checkpoint=None)))
    begun = Trainer(training(checkpoint=None))
    first = copy.deepcopy(begun.model.state_dict())
    begun.train_epoch(0)
    monkeypatch.setattr(begun, "_step", lambda *_: torch.zeros(()))
    begun.train_epoch(1)
    assert all(torch.equal(tensor, first[name]) for name, tensor in begun.model.state_dict().items())

    interrupt_after(training(), epochs)
    assert equal(outcome(training()), undisturbed)


@pytest.mark.parametrize("between", [True, False], ids=["between two epochs", "within an epoch"])
def test_a_keyboard_interrupt_has_the_last_epochs_end_written(data, between, monkeypatch):
    undisturbed = outcome(resumed(data, checkpoint=None))
    results = train(resumed(data, checkpoint_seconds=3600.0))
    next(results), next(results)
    assert not CHECKPOINT.exists()
    if between:
        with pytest.raises(KeyboardInterrupt):
            results.throw(KeyboardInterrupt)
    else:
        steps = itertools.count()

        def interrupted(*arguments: object) -> Tensor:
            if next(steps) == 2:
                raise KeyboardInterrupt
            return step(*arguments)

        step = Trainer._step
        with monkeypatch.context() as patch:
            patch.setattr(Trainer, "_step", interrupted)
            with pytest.raises(KeyboardInterrupt):
                next(results)
    assert [result.restored for result in train(resumed(data))] == [True, True, False, False]
    assert equal(outcome(resumed(data)), undisturbed)


def cut_off() -> None:
    CHECKPOINT.write_bytes(CHECKPOINT.read_bytes()[:-9])


def reshape() -> None:
    """A whole file that says to be of this training; its tensors are others."""
    file = read_tensors(CHECKPOINT)
    tensors = {name: tensor[..., :-1] if tensor.ndim > 1 else tensor for name, tensor in file.tensors.items()}
    write_tensors(CHECKPOINT, tensors, file.metadata)


@pytest.mark.parametrize("damage", [cut_off, reshape])
def test_a_checkpoint_that_cannot_be_used_is_a_warning_and_the_training_starts_over(data, damage, caplog):
    undisturbed = numbers(train(resumed(data, checkpoint=None)))
    interrupt_after(resumed(data), 2)
    damage()
    results = list(train(resumed(data)))
    (record,) = caplog.records
    assert record.args[0] == CHECKPOINT.absolute()
    assert not any(result.restored for result in results)
    assert numbers(results) == undisturbed
    assert all(result.restored for result in train(resumed(data)))  # from what took its place


def test_a_training_without_validation_goes_on_too(data):
    everything = data.model_copy(update={"validation_images": 0})
    interrupt_after(resumed(everything, train_images=IMAGES), 2)
    results = list(train(resumed(everything, train_images=IMAGES)))
    assert [result.restored for result in results] == [True, True, False, False]
    assert [result.validation_accuracy for result in results] == [None] * 4


# ---- Speed -----------------------------------------------------------------------------------------------


class _Waits(TorchDispatchMode):
    """Counts what makes the program wait for the device: a tensor's value wanted in Python."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, function, types, arguments=(), options=None):
        self.count += function in (
            torch.ops.aten._local_scalar_dense.default,  # item(), float(), if
            torch.ops.aten.nonzero.default,  # choosing by a mask
        )
        return function(*arguments, **(options or {}))


def test_the_number_of_waits_for_the_device_does_not_depend_on_the_number_of_steps(data):
    def waits(batch_size: int) -> int:
        trainer = Trainer(small_training(data, batch_size=batch_size, architecture=SMALL_CONVNET))
        trainer.train_epoch(0)
        with _Waits() as counted:
            trainer.train_epoch(1)
        return counted.count

    assert waits(300) == waits(50) > 0


@pytest.mark.parametrize("threads", [1, 2])
def test_a_cpu_training_uses_its_number_of_threads(data, threads):
    next(train(small_training(data, threads=threads)))
    assert torch.get_num_threads() == threads


# ---- Folds, and training on all images -------------------------------------------------------------------


def test_images_that_do_not_validate_change_nothing_but_the_accuracy(data):
    """The same training images, in the same order: a validation leaves no trace in the training."""
    fold = Fold(index=0, count=4)
    weights = [Path(f"{name}.safetensors").absolute() for name in ("one", "two")]
    trainings = [small_training(data, fold=fold, weights=str(path)) for path in weights]
    first = list(train(trainings[0]))
    trainer = Trainer(trainings[1])
    trainer.images = dataclasses.replace(
        trainer.images, validation_images=trainer.images.validation_images[:0]
    )
    second = [trainer.train_epoch(epoch) for epoch in range(2)]
    assert [result.loss for result in first] == [result.loss for result in second]
    assert all(torch.equal(t, trainer.model.state_dict()[n]) for n, t in load_file(weights[0]).items())


def test_a_fold_trains_on_its_own_images_and_is_measured_on_the_others(data):
    trainings = [small_training(data, fold=Fold(index=index, count=4)) for index in range(2)]
    trainers = [Trainer(training) for training in trainings]
    for trainer, training in zip(trainers, trainings, strict=True):
        images = open_training_images(data, 300, "cpu", training.fold)
        assert torch.equal(trainer.images.train_images, images.train_images)
        result = trainer.train_epoch(0)
        expected = accuracy(trainer.model, images.validation_images, images.validation_labels)
        assert result.validation_accuracy == expected
        sample = images.train_images.float()
        torch.testing.assert_close(trainer.model.normalisation.mean, sample.mean((0, 2, 3)))
    assert not torch.equal(trainers[0].images.train_images, trainers[1].images.train_images)
