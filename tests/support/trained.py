"""A small network that was really trained, a study that knows it, and what exporting it takes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.trial import TrialState, create_trial
from torch import nn

from mc1opt.config import SGD, Config, OneCycle, config_id, config_to_json
from mc1opt.data.sources import look_at_files
from mc1opt.database import records, study_attributes
from mc1opt.database.location import checkpoints_folder
from mc1opt.database.opening import open_storage
from mc1opt.database.ownership import this_owner
from mc1opt.database.trial_files import study_folder, weights_path
from mc1opt.dataset import DataSet, Task
from mc1opt.spec import EpochResult, Training
from mc1opt.training.loop import train
from mc1opt.training.model_folder import write_model_folder
from tests.support.images import ALL_AUGMENTATION, IMAGES, SMALL_CONVNET, small_training, write_images

STUDY = "s"
STORAGE = "storage/mc1opt.db"
RESIDUAL_NET = SMALL_CONVNET.model_copy(
    update={"blocks": tuple(block.model_copy(update={"residual": True}) for block in SMALL_CONVNET.blocks)}
)
BEST = 1
"""The trial with the highest value; its weights are kept, and those of trial 0."""


@dataclass(frozen=True)
class Trained:
    """A training that has ended."""

    training: Training
    results: list[EpochResult]
    weights: Path

    @property
    def config(self) -> Config:
        return self.training.config

    @property
    def data(self) -> DataSet:
        return self.training.data


def train_small(folder: Path, *, channels: int = 3, size: int = 32, **changes: Any) -> Trained:
    """Trains `RESIDUAL_NET` with everything that a recipe can have; images and weights lie in `folder`."""
    data = write_images(folder, channels, size)
    name, _, _ = look_at_files(folder)
    data = data.model_copy(update={"name": name, "validation_images": IMAGES // 10})
    fields = {"architecture": RESIDUAL_NET, "schedule": OneCycle(), "augmentation": ALL_AUGMENTATION}
    fields |= {"label_smoothing": 0.1, "weights": str(folder / "trained.safetensors")}
    fields["optimizer"] = SGD(learning_rate=0.05, momentum=0.9, nesterov=True, weight_decay=0.05)
    training = small_training(data, **(fields | changes))
    return Trained(training, list(train(training)), folder / "trained.safetensors")


def random_images(count: int, seed: int = 0) -> torch.Tensor:
    """Noise, uint8, count x 3 x 32 x 32."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8, generator=generator)


def logits_of(network: nn.Module, images: torch.Tensor) -> np.ndarray:
    with torch.inference_mode():
        return network.eval()(images).numpy()


def write_model(folder: Path, trained: Trained, **changes: Any) -> Path:
    """A model folder with the metrics that a retraining writes, as far as others read them."""
    metrics = {
        "study": STUDY,
        "data": {"name": trained.data.name, "sha256": trained.data.sha256},
        "kept_seed": trained.training.seed,
        "epochs": trained.training.fidelity.epochs,
        "train_images": {"final": trained.training.fidelity.train_images},
        "test": {"mean": 0.5, "by_seed": {"1": 0.625, "2": 0.375}},
    }
    write_model_folder(folder, trained.weights, trained.config, Task(), metrics | changes, "A card.\n")
    return folder


AGAIN = {BEST: [0.7, 0.72]}
"""Validation accuracies of a confirmed trial's new trainings, by its number."""


def write_study(
    trained: Trained,
    *,
    name: str = STUDY,
    storage: str = STORAGE,
    again: Mapping[int, Sequence[float]] = AGAIN,
) -> None:
    """A study as a search leaves it: two finished trials with kept weights, one without, and others."""
    database = open_storage(storage, create=True, owner=this_owner(), threads=1)
    study = optuna.create_study(study_name=name, storage=database, direction="maximize")
    fidelity = trained.training.fidelity.model_dump()
    study.set_user_attr(study_attributes.STUDY_DEFINITION, name)
    study.set_user_attr(study_attributes.STUDY_SEED, 0)
    study.set_user_attr(records.FIDELITY, fidelity)
    study.set_user_attr(records.DATA, {"name": trained.data.name, "sha256": trained.data.sha256})
    attributes = {
        records.OWNER: this_owner(),
        records.CONFIG: config_to_json(trained.config),
        records.CONFIG_ID: config_id(trained.config),
        records.SEED: trained.training.seed,
        records.FIDELITY: fidelity,
    }
    newer = {**attributes[records.CONFIG], "schema_version": 99}
    failure = {"kind": "diverged", "message": "the training loss of epoch 1 is nan"}
    trials: list[tuple[TrialState, float | None, dict[str, Any]]] = [
        (TrialState.COMPLETE, 0.5, {}),
        (TrialState.COMPLETE, 0.75, {}),
        (TrialState.COMPLETE, 0.25, {}),
        (TrialState.PRUNED, None, {records.FAILURE: failure}),
        (TrialState.COMPLETE, 0.4, {records.CONFIG: newer}),
    ]
    for number, (state, value, extra) in enumerate(trials):
        if number in again:
            confirmations = [{"seed": 5 + index, "value": v} for index, v in enumerate(again[number])]
            extra[records.CONFIRMATIONS] = confirmations
        reports = {} if value is None else {0: value}
        study.add_trial(
            create_trial(
                state=state, value=value, intermediate_values=reports, user_attrs={**attributes, **extra}
            )
        )
    folder = study_folder(checkpoints_folder(storage), name)
    folder.mkdir(parents=True)
    for number in (0, BEST, 4):
        weights_path(folder, number).write_bytes(trained.weights.read_bytes())
