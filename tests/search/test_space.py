"""Study files of before import suggestions from `mc1opt.search.space`."""

import pytest

from mc1opt import suggest
from mc1opt.search import space


@pytest.mark.parametrize("name", ["suggest_augmentation", "suggest_optimizer", "suggest_schedule"])
def test_they_find_them_where_they_were(name: str) -> None:
    assert getattr(space, name) is getattr(suggest, name)
