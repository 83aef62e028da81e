"""What several commands share: how W&B is switched on."""

import pytest

from mc1opt.cli.options import WANDB_MODES, wandb_mode
from mc1opt.errors import UsageError


@pytest.mark.parametrize(
    ("option", "mode"), [("off", None), ("offline", "offline"), ("online", "online"), (None, None)]
)
def test_without_the_variable_the_option_says_how_to_mirror(
    option: str | None, mode: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for unset in ("", None):
        monkeypatch.delenv("WANDB_MODE", raising=False)
        if unset is not None:
            monkeypatch.setenv("WANDB_MODE", unset)
        assert wandb_mode(option) == mode
        assert wandb_mode(option, default="online") == (mode if option else "online")


@pytest.mark.parametrize("variable", WANDB_MODES)
def test_the_variable_counts_where_the_option_is_not_given(
    variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", variable)
    assert wandb_mode(None) == WANDB_MODES[variable]
    assert wandb_mode(None, default="online") == WANDB_MODES[variable]
    assert wandb_mode("off") is None
    assert wandb_mode("offline") == "offline"


def test_what_is_no_mode_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match=r"--wandb 'on' is no mode\. Give off, offline or online\."):
        wandb_mode("on")
    monkeypatch.setenv("WANDB_MODE", "often")
    with pytest.raises(UsageError, match=r"WANDB_MODE 'often' is no mode of W&B's \(online, run"):
        wandb_mode(None)
