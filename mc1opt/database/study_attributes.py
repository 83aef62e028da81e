"""The attributes of stored studies, and what is read from them alone. Those of trials are in `records`."""

from collections.abc import Mapping
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
STUDY_STARTED = "mc1opt_starting_points_enqueued"
STUDY_FOLDER = "mc1opt_folder"
"""The name of the study's folder; see `study_folder_name`."""
STUDY_IDENTITY = "mc1opt_identity"
"""A random id, stored when the study is first mirrored: two studies may share a name."""


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
