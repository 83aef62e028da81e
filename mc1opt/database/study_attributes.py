"""The attributes of stored studies, and what is read from them alone. Those of trials are in `records`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from mc1opt.database.location import folder_name
from mc1opt.errors import UsageError
from mc1opt.metric import ACCURACY, Aim

STUDY_SEED = "mc1opt_seed"
STUDY_DEFINITION = "mc1opt_definition"
STUDY_SPACE = "mc1opt_search_space"
STUDY_MAX_MACS = "mc1opt_max_macs"
STUDY_METRIC = "mc1opt_metric"
"""{"name": ..., "direction": ...} and the fingerprint of a study file's own; older studies have none."""
STUDY_METRIC_FILE = "mc1opt_metric_file"
"""Where that study file was at the last start."""
STUDY_CLASS_WEIGHTS, STUDY_CONSTRAINTS = "mc1opt_class_weights", "mc1opt_constraints"
"""As the study file says them; older studies have none."""
STUDY_SAMPLER, STUDY_PRUNER = "mc1opt_sampler", "mc1opt_pruner"
"""The defaults of the next start."""
STUDY_FROM = "mc1opt_from"
"""A `BegunFrom`, of a study that began `--from` another one; others have none."""
STUDY_KNOWN = "mc1opt_known"
"""What that study knew and this one's sampler sees: `KnownTrial`s of `mc1opt.search.warm_start`. A copy, for
the other study may grow or be deleted."""
STUDY_STARTED = "mc1opt_starting_points_enqueued"
STUDY_FOLDER = "mc1opt_folder"
"""The name of the study's folder; see `study_folder_name`."""
STUDY_IDENTITY = "mc1opt_identity"
"""A random id, stored when the study is first mirrored: two studies may share a name."""


@dataclass(frozen=True)
class BegunFrom:
    """What a study took over from the one that it began from."""

    study: str
    """That study's name."""
    trials: int
    """Trained trials that it knew."""
    fit: int
    """How many of them fit the search space of the new study."""
    misfits: dict[str, int]
    """Why the others do not: a reason in words -> number of trials."""
    differs: dict[str, str]
    """Where not even the values of those that fit compare: what differs -> what it was there."""
    starting_points: dict[str, dict[str, Any]]
    """Its best trials: name -> parameters."""

    @property
    def compares(self) -> bool:
        """Whether values of both studies mean the same, so that the sampler sees them."""
        return not self.differs


def begun_from(attributes: Mapping[str, Any]) -> BegunFrom | None:
    """What a study took over from another one, by its user attributes; None if it began from none."""
    return BegunFrom(**attributes[STUDY_FROM]) if STUDY_FROM in attributes else None


def study_folder_name(name: str, attributes: Mapping[str, Any]) -> str:
    """The name of a study's folder, among checkpoints, models and exports.

    It is stored in the study, so that a renamed study keeps it. Older studies have none until they are
    resumed: their folder has the study's name.

    Args:
        name: the study's name.
        attributes: the study's user attributes.
    """
    stored = attributes.get(STUDY_FOLDER)
    # A database may come from anywhere: deleting its study must not delete a folder elsewhere.
    if isinstance(stored, str) and stored == folder_name(stored, "study"):
        return stored
    return folder_name(name, "study")


def aim_of(attributes: Mapping[str, Any]) -> Aim:
    """What a study aims at, by its user attributes.

    Raises:
        UsageError: they are damaged, or of a newer mc1opt.
    """
    metric = attributes.get(STUDY_METRIC) or ACCURACY.identity
    try:
        return Aim.model_validate(
            {
                "metric": {**metric, "path": attributes.get(STUDY_METRIC_FILE)},
                "class_weights": attributes.get(STUDY_CLASS_WEIGHTS),
                **(attributes.get(STUDY_CONSTRAINTS) or {}),
            }
        )
    except (TypeError, ValidationError) as error:
        raise UsageError(
            f"metric, class weights or constraints of the study cannot be read: {metric!r}. A newer mc1opt "
            "may have written them."
        ) from error
