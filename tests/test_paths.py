"""`~` as a shell user means it."""

import re
from pathlib import Path

import pytest

from mc1opt.errors import UsageError
from mc1opt.paths import user_path


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.mark.parametrize(
    ("text", "below"), [("~", "."), ("~/", "."), ("~/x", "x"), ("~//x y/../z", "x y/../z"), ("~/~", "~")]
)
def test_a_tilde_at_the_beginning_is_the_home_folder(home: Path, text: str, below: str) -> None:
    assert user_path(text) == home / below


def test_another_users_home_folder_is_found_by_name() -> None:
    assert user_path("~root/x") == Path("~root").expanduser() / "x"


@pytest.mark.parametrize("text", ["x", "a/~/x", "x~", "/~/x", "../~/x", "$HOME/x", "", "."])
def test_every_other_path_stays_as_it_is(home: Path, text: str) -> None:
    assert user_path(text) == Path(text)


@pytest.mark.parametrize("text", ["./~/x", "./~", ".//~root/x", "././~nobodyhere"])
def test_what_is_called_so_here_is_reached_and_never_read_as_home_again(home: Path, text: str) -> None:
    found = user_path(text)
    assert found == Path.cwd() / text
    assert user_path(str(found)) == found


@pytest.mark.parametrize("text", ["~nobodyhere", "~nobodyhere/x.db"])
def test_an_unknown_user_is_named_with_the_way_out(text: str) -> None:
    with pytest.raises(UsageError, match=r"'nobodyhere'.*\./~nobodyhere"):
        user_path(text)


def test_no_benchmark_takes_a_path_as_it_is_given() -> None:
    options = [
        call
        for path in (Path(__file__).parents[1] / "benchmarks").glob("*.py")
        for call in re.findall(r"add_argument\(.*?\)\n", path.read_text(), re.DOTALL)
    ]
    a_path = re.compile(r"Path|_path|torage|--(data|folder|output|results)\b")
    paths = [call for call in options if a_path.search(call)]
    assert len(paths) >= 10
    for call in paths:
        assert "type=user_path" in call or "type=user_storage" in call, call
