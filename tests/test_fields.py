"""Fields that came later leave the identity of what is older as it was."""

import pytest
from pydantic import BaseModel, Field

from mc1opt.fields import as_before, canonical_json


class EarlierPart(BaseModel):
    width: int = 1


class LaterPart(EarlierPart):
    groups: int = Field(default=1, json_schema_extra=as_before())
    tags: list[str] = Field(default_factory=list, json_schema_extra=as_before())


class Earlier(BaseModel):
    parts: tuple[EarlierPart, ...] = (EarlierPart(),)


class Later(BaseModel):
    parts: tuple[LaterPart, ...] = (LaterPart(),)
    extra: LaterPart | None = Field(default=None, json_schema_extra=as_before())


def test_a_later_field_at_its_default_leaves_the_identity_as_it_was():
    assert canonical_json(Later()) == canonical_json(Earlier())


@pytest.mark.parametrize(
    "later",
    [
        Later(extra=LaterPart()),
        Later(parts=(LaterPart(groups=2),)),
        Later(parts=(LaterPart(tags=["new"]),)),
    ],
)
def test_a_later_field_at_another_value_changes_the_identity(later):
    assert canonical_json(later) != canonical_json(Earlier())


def test_a_field_that_is_not_marked_is_part_of_the_identity_at_its_default():
    class Unmarked(EarlierPart):
        groups: int = 1

    assert canonical_json(Unmarked()) != canonical_json(EarlierPart())
