"""What a study's retraining has found, read from its model folder."""

import contextlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import AliasPath, BaseModel, ConfigDict, Field, ValidationError

from mc1opt.database.location import models_folder
from mc1opt.database.records import StudyRecord
from mc1opt.errors import Mc1optError
from mc1opt.training.model_folder import ModelFolder, read_model_folder


class Retrained(BaseModel):
    """The result of a retraining of the study, as a model folder's metrics have it."""

    model_config = ConfigDict(frozen=True, populate_by_name=True)

    trial: int = Field(validation_alias=AliasPath("winner", "trial"))
    """The winner's number."""
    config_id: str = Field(validation_alias=AliasPath("winner", "config_id"))
    seeds: int = Field(validation_alias=AliasPath("test", "n"))
    epochs: int
    validation: float = Field(validation_alias=AliasPath("winner", "mean"))
    """Mean over the seeds."""
    test: float = Field(validation_alias=AliasPath("test", "mean"))
    """Mean over the seeds."""
    interval: tuple[float, float] | None = Field(validation_alias=AliasPath("test", "interval"))
    """95 % confidence interval of that mean; None for one seed."""
    model: str
    """The model's folder."""
    data: str = Field(validation_alias=AliasPath("data", "name"))
    """Name of the images that it was trained on."""


@dataclass(frozen=True)
class RetrainedModel:
    """The retraining, and the model that it has kept."""

    found: Retrained
    folder: ModelFolder


def retrained(metrics: Mapping[str, Any]) -> Retrained | None:
    """The result in a model folder's metrics; None if they are not of a retraining."""
    with contextlib.suppress(ValidationError):
        return Retrained.model_validate(metrics)
    return None


def retrained_model(storage: str, record: StudyRecord) -> RetrainedModel | None:
    """The study's retraining; None without a complete one, and for that of an earlier study of this name."""
    with contextlib.suppress(Mc1optError):
        folder = read_model_folder(models_folder(storage, record.folder))
        found = retrained(folder.metrics)
        if found and found.data == (record.data or {}).get("name"):
            winner = (found.trial, found.config_id)
            if any((t.number, t.config_id) == winner and t.value is not None for t in record.trials):
                return RetrainedModel(found, folder)
    return None
