"""Options that turn on what a plain `pytest` skips, and the folder that every test works in."""

from pathlib import Path

import pytest

SWITCHES = {
    "real_data": ("--real-data", "needs the real CIFAR-10"),
    "postgresql": ("--postgresql", "needs PostgreSQL's server programs"),
    "browser": ("--browser", "needs Chromium and its driver"),
    "cuda": ("--cuda", "needs an NVIDIA GPU"),
    "slow": ("--slow", "takes long"),
}


def pytest_addoption(parser: pytest.Parser) -> None:
    for option, reason in SWITCHES.values():
        parser.addoption(
            option, action="store_true", help=f"run the tests that are skipped because: {reason}"
        )
    parser.addoption(
        "--kills", type=int, default=5, help="how often tests/faults/test_chaos.py kills each of its searches"
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        for marker, (option, reason) in SWITCHES.items():
            if marker in item.keywords and not config.getoption(option):
                item.add_marker(pytest.mark.skip(reason=f"{reason}; turn on with {option}"))


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """Relative paths lead into the folder of the test, and images into a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_MODE", raising=False)  # or every search here would be mirrored
    if "real_data" not in request.keywords:
        monkeypatch.setenv("MC1OPT_DATA", str(tmp_path / "cache"))
