"""The report in a real Chromium, from disk: no request, figures to see, and what axe-core finds.

Screenshots are kept in pytest's cache, `.pytest_cache/d/screenshots`.
"""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.browser import Browser
from mc1opt.data.fetch import npm_command
from mc1opt.report.page import page
from tests.report.test_page import HOSTILE, explanation
from tests.report.test_trust import curve, facts
from tests.support.display import again, study, trial

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

AXE = "axe-core@4.11.0"
"""Deque's checks of accessibility: contrast, headings, alternative texts and others."""
FIGURES = 5
MODES = ("light", "dark")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with all that a study without a model can have, and with hostile names."""
    whole = [
        curve(n, 0.4 + n / 90, 0.6 + n / 100, parameters=1000 * (n + 1), confirmations=again(0.7, 0.71))
        for n in range(12)
    ]
    record = study(
        *whole,
        trial(12, "pruned", params={HOSTILE: 1}),
        trial(13, "failed"),
        trial(14, starting_point=HOSTILE),
        study=HOSTILE,
    )
    found = facts(record, importances={"width": 0.7, HOSTILE: 0.3}, explanation=explanation(source=HOSTILE))
    path = tmp_path_factory.mktemp("report") / "page.html"
    path.write_text(page(found))
    return path.as_uri()


@pytest.fixture(scope="module")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of axe-core, from npm."""
    folder = tmp_path_factory.mktemp("axe")
    subprocess.run(npm_command(AXE, folder), check=True, capture_output=True, timeout=120)
    (archive,) = folder.glob("*.tgz")
    shutil.unpack_archive(archive, folder)
    return (folder / "package/axe.min.js").read_text()


@pytest.fixture(scope="module", params=[(1400, "light"), (1400, "dark"), (420, "light"), (420, "dark")])
def browser(request: pytest.FixtureRequest, address: str) -> Iterator[Browser]:
    """The page, wide or narrow, light or dark; kept as a picture."""
    width, mode = request.param
    assert request.config.cache is not None
    with Browser(width=width, height=6000, mode=mode) as opened:
        opened.open(address)
        yield opened
        opened.picture(request.config.cache.mkdir("screenshots") / f"report-{mode}-{width}.png")


def test_no_request_is_made_and_nothing_is_complained_of(browser: Browser, address: str) -> None:
    assert browser.requests() == [address]
    assert browser.errors() == []


def test_the_figures_are_drawn(browser: Browser) -> None:
    heights = (
        "return [...document.querySelectorAll('figure > svg')].map(f => f.getBoundingClientRect().height)"
    )
    drawn = browser.run(heights)
    assert len(drawn) == FIGURES
    assert min(drawn) > 100
    assert browser.run("return document.querySelectorAll('figure circle').length") > 20


def test_nothing_is_wider_than_the_page(browser: Browser) -> None:
    assert browser.run("return document.documentElement.scrollWidth <= window.innerWidth")


def test_hostile_names_stay_text(browser: Browser) -> None:
    assert HOSTILE in browser.text()
    assert browser.run("return document.querySelectorAll('script, img').length") == 0


def test_axe_finds_nothing(browser: Browser, axe: str) -> None:
    """Contrast, headings, alternative texts, tables; the browser's own call, which no policy holds up."""
    found = browser.run_async(f"{axe}; axe.run().then(arguments[arguments.length - 1]);")
    broken = {entry["id"]: [node["html"] for node in entry["nodes"]][:3] for entry in found["violations"]}
    assert broken == {}, json.dumps(broken, indent=2)
    assert {"color-contrast", "heading-order", "svg-img-alt"} <= {entry["id"] for entry in found["passes"]}


def test_it_prints(address: str, tmp_path: Path) -> None:
    with Browser() as opened:
        opened.open(address)
        content = opened.pdf()
    (tmp_path / "page.pdf").write_bytes(content)
    assert content.startswith(b"%PDF")
    assert content.count(b"/Type /Page\n") >= 2
