"""The real dashboard on a real study in a real Chromium: a person finds what a study is about.

Screenshots are kept in pytest's cache, `.pytest_cache/d/screenshots`.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from benchmarks.browser import Browser
from mc1opt.database.records import StudyRecord
from tests.support.studies import run_study, stored

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

STUDY = "seen-in-a-browser"
TRIALS = 40
FIGURE_TITLES = (
    "Learning curves",
    "Accuracy and parameters",
    "Best accuracy over time",
    "How far trials got",
)


@dataclass(frozen=True)
class Site:
    """A dashboard that is served, and what it must show."""

    study_page: str
    record: StudyRecord
    browser: Browser
    screenshots: Path

    @property
    def best(self) -> int:
        assert self.record.best is not None
        return self.record.best.number

    def see(self, path: str, *texts: str) -> str:
        """Opens a page below the study's, and waits for texts; all that it shows then."""
        self.browser.open(f"{self.study_page}{path}")
        self.browser.wait_for(*texts)
        return self.browser.text()


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Site]:
    """A study with complete, pruned, too large and duplicate trials, served by the command."""
    storage = tmp_path_factory.mktemp("site") / "s.db"
    run_study(TRIALS, path=str(storage), study=STUDY)
    assert request.config.cache is not None
    command = [Path(sys.executable).parent / "mc1opt", "dashboard", "--study", STUDY, "--storage", storage]
    server = subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        address = server.stdout.readline().split()[1]
        with Browser(height=2600) as browser:
            yield Site(
                address, stored(str(storage), STUDY), browser, request.config.cache.mkdir("screenshots")
            )
    finally:
        server.terminate()
        server.communicate(timeout=60)


@pytest.fixture(autouse=True)
def _screenshot_and_no_errors(site: Site, request: pytest.FixtureRequest) -> Iterator[None]:
    """Each page is kept as a picture, and its console has no error."""
    site.browser.errors()
    yield
    site.browser.picture(site.screenshots / f"{request.node.name.removeprefix('test_')}.png")
    assert site.browser.errors() == []


def test_the_list_names_the_study(site: Site) -> None:
    site.browser.open(site.study_page.partition("/studies/")[0])
    site.browser.wait_for(STUDY, "MAXIMIZE")
    assert site.browser.text().count(STUDY) == 1


def test_the_study_shows_its_history_what_matters_and_our_figures(site: Site) -> None:
    site.see("", "History", "Hyperparameter Importance", "Timeline", *FIGURE_TITLES)
    site.browser.wait_for_figures(3 + len(FIGURE_TITLES))
    assert "Pruning saved" in site.browser.text()
    importances = "return document.querySelectorAll('.js-plotly-plot .bars .point').length"
    assert site.browser.run(importances) >= len(site.record.trials[0].params)


def test_the_note_says_what_is_best_and_how_to_go_on(site: Site) -> None:
    assert site.record.best is not None
    best = f"Best so far: {site.record.best.value:.4f}, trial #{site.best}"
    text = site.see("/note", best, f"mc1opt retrain --study {STUDY}")
    for outcome in ("complete", "pruned", "too_large", "duplicate"):
        count = sum(trial.outcome == outcome for trial in site.record.trials)
        assert f"{count} {outcome.replace('_', ' ')}" in text


def test_the_best_trial_has_its_note_its_config_and_its_files(site: Site) -> None:
    site.see(f"/trials?numbers={site.best}", f"Trial {site.best}", f"mc1opt export --study {STUDY}")
    site.browser.wait_for("config.json", "history.csv", "learning_curve.png")
    site.browser.wait_for_pictures(1)
    assert site.record.best is not None
    assert f"parameters {site.record.best.parameters}" in site.browser.text()


@pytest.mark.parametrize("outcome", ["too_large", "duplicate", "pruned"])
def test_a_trial_that_optuna_calls_pruned_says_what_it_is(site: Site, outcome: str) -> None:
    number = next(trial.number for trial in site.record.trials if trial.outcome == outcome)
    text = site.see(f"/trials?numbers={number}", f"Trial {number}", "outcome ")
    assert re.findall(r"^outcome (\w+)", text, re.MULTILINE) == [outcome]
