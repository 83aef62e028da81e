"""The pictures of the README: the dashboard's pages and the report of a stored study, in a real browser.

At the top of the repository, after a search:

    python -m benchmarks.screenshots [--study cnn] [--storage storage/mc1opt.db]

Writes `benchmarks/screenshots/study.png`, `note.png` and `trial.png` (the best trial's page), and of the
report `trust.png` and `difference.png`. Needs Debian's chromium and chromium-driver.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.browser import Browser
from mc1opt.database.location import DEFAULT_STORAGE, user_storage
from mc1opt.database.studies import read_study
from mc1opt.paths import user_path
from mc1opt.report.page import write_report

SCREENSHOTS = Path(__file__).parent / "screenshots"
FIGURES = 7
"""On the page of a study: three of the dashboard's own and four of ours; more are further down."""


def take(storage: str, study: str, folder: Path) -> None:
    """Serves the dashboard as the command does, and takes a picture of each page.

    Args:
        storage: the study database, a path or a URL.
        study: the name of a study with a completed trial.
        folder: where the pictures go; older ones are replaced.

    Raises:
        StorageError: there is no such study.
    """
    best = read_study(storage, study).best
    if best is None:
        sys.exit(f"study {study!r} has no completed trial yet")
    command = [Path(sys.executable).parent / "mc1opt", "dashboard", "--study", study, "--storage", storage]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        try:
            page = server.stdout.readline().split()[1]
            with Browser(height=2300) as browser:
                browser.open(page)
                browser.wait_for("Hyperparameter Importance", "Learning curves")
                browser.wait_for_figures(FIGURES)
                browser.picture(folder / "study.png")
            with Browser(height=1000) as browser:
                browser.open(f"{page}/note")
                browser.wait_for("Best so far")
                browser.picture(folder / "note.png")
            with Browser(height=2000) as browser:
                browser.open(f"{page}/trials?numbers={best.number}")
                browser.wait_for("learning_curve.png")
                browser.wait_for_pictures(1)
                browser.picture(folder / "trial.png")
            with Browser(width=1100, height=9000) as browser:
                browser.open(write_report(storage, study).absolute().as_uri())
                for section in ("trust", "difference"):
                    browser.picture(folder / f"{section}.png", f"#{section}")
        finally:
            server.terminate()


def main() -> None:
    """Takes the pictures, and says where they are."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--study", default="cnn")
    parser.add_argument("--storage", type=user_storage, default=DEFAULT_STORAGE)
    parser.add_argument("--folder", type=user_path, default=SCREENSHOTS)
    options = parser.parse_args()
    take(options.storage, options.study, options.folder)
    print("\n".join(str(path) for path in sorted(options.folder.glob("*.png"))))


if __name__ == "__main__":
    main()
