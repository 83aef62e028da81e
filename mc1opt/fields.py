"""What configs are made of: frozen models whose later fields leave older identities as they were."""

import json
from typing import Any

from pydantic import BaseModel, ConfigDict, Field


class Model(BaseModel):
    """A part of a config, or a whole one: immutable, finite numbers, no unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True)


def as_before() -> dict[str, Any]:
    """Marks a field added after schema version 1, for `Field(json_schema_extra=as_before())`.

    Its default must mean what configs without the field meant. The identity leaves it out at that value, so
    that ids written before it existed stay valid.
    """
    return {"added_later": True}


def without_identity() -> dict[str, Any]:
    """Marks a field that does not tell configs apart, for `Field(json_schema_extra=without_identity())`."""
    return {"identity": False}


def later_field(default: Any, **limits: Any) -> Any:
    """A field that `as_before` marks, and that the JSON leaves out at its default, as before it existed."""
    return Field(
        default=default, exclude_if=lambda value: value == default, json_schema_extra=as_before(), **limits
    )


def _identity(value: Any) -> Any:
    """The config as JSON values, without fields that are marked to be left out."""
    if isinstance(value, BaseModel):
        result = {}
        for name, field in type(value).model_fields.items():
            item = getattr(value, name)
            extra = field.json_schema_extra
            marks = extra if isinstance(extra, dict) else {}
            if not marks.get("identity", True):
                continue
            if marks.get("added_later") and item == field.get_default(call_default_factory=True):
                continue
            result[name] = _identity(item)
        return result
    if isinstance(value, tuple):
        return [_identity(item) for item in value]
    if isinstance(value, float):
        return value + 0.0  # -0.0 is 0.0
    return value


def canonical_json(config: BaseModel) -> str:
    """The text that the identity is the hash of: sorted keys, no blanks."""
    return json.dumps(_identity(config), sort_keys=True, separators=(",", ":"), allow_nan=False)
