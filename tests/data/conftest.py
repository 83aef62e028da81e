from pathlib import Path

import pytest

from mc1opt.data import cache, fetch
from mc1opt.data.formats import Arrays
from tests.support.image_sets import make_arrays
from tests.support.shell_sources import ShellSources


@pytest.fixture
def own_cifar10(monkeypatch: pytest.MonkeyPatch) -> Arrays:
    """The small images count as CIFAR-10: what is fetched must have their hashes."""
    arrays = make_arrays()
    for name, digest in cache.check_arrays(arrays, "").items():
        monkeypatch.setitem(cache.CIFAR10_SHA256, name, digest)
    return arrays


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ShellSources:
    """Makes sources, which are looked at every 20 ms."""
    monkeypatch.setattr(fetch, "POLL_SECONDS", 0.02)
    return ShellSources(tmp_path / "sources")
