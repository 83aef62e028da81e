"""The page: whole, without a network, small, and with names that stay text."""

import base64
import csv
import gzip
import io
import json
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from mc1opt.database.records import StudyRecord
from mc1opt.dataset import Task
from mc1opt.errors import StorageError
from mc1opt.explanation.result import Explanation, Step
from mc1opt.metric import Aim, known_metric
from mc1opt.report.facts import Facts, gather
from mc1opt.report.page import page, report_path, write_or_warn, write_report
from mc1opt.report.trust import checks
from tests.report.test_trust import facts
from tests.support.display import study, trial
from tests.support.retraining import STORAGE, STUDY
from tests.support.studies import run_study

LARGEST = 2_000_000
"""Bytes."""
HOSTILE = "<script>alert(1)</script>\"'&amp; <img src=x onerror=alert(2)>"


class Read(HTMLParser):
    """A page as a browser takes it apart."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.open: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    @property
    def headings(self) -> list[str | None]:
        return [attributes.get("id") for tag, attributes in self.tags if tag == "section"]

    def addresses(self) -> list[str]:
        return [
            value or ""
            for _, attributes in self.tags
            for name, value in attributes.items()
            if name in ("src", "href", "srcset", "data", "action")
        ]


def read(found: Facts) -> Read:
    text = page(found)
    assert len(text.encode()) < LARGEST
    content = Read(text)
    assert content.open == []
    return content


def explanation(**changes: Any) -> Explanation:
    def step(group: str, mean: float | None, difference: float | None) -> Step:
        interval = None if difference is None else (difference - 0.01, difference + 0.01)
        return Step(group, "16 -> 32", "0" * 12, 1234, 3, mean, (0.5, 0.6), difference, interval, 0, {})

    known: dict[str, Any] = {
        "study": "s",
        "source": "preset cnn-32-128-pool",
        "target": "#41",
        "metric": "accuracy",
        "direction": "maximize",
        "is_share": True,
        "fidelity": "5 epochs of 18,000 images",
        "seeds": 3,
        "steps": (step("source", 0.55, None), step("widths", 0.6, 0.05), step("recipe", None, None)),
        "total": 0.05,
        "total_interval": (0.04, 0.06),
        "leave_one_out": (step("widths", 0.56, -0.04),),
        "inseparable": ("stem",),
        "trainings": 9,
        "seconds": 100.0,
    }
    return Explanation(**(known | changes))


# ---- What is on it ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("trials", [0, 1, 12])
def test_every_study_has_a_page(trials: int) -> None:
    record = run_study(trials).record if trials else study()
    content = read(facts(record))
    trusted = ["trust"] if record.best else []
    assert content.headings == ["answer", *trusted, "difference", "search", "others", "data", "repeat"]


def test_nothing_is_loaded_from_elsewhere_and_nothing_runs(retrained: StudyRecord) -> None:
    assert retrained.best is not None
    content = read(gather(STORAGE, STUDY))
    assert all(address.startswith("data:") for address in content.addresses())
    assert len(content.addresses()) > 30  # images and files
    assert not {tag for tag, _ in content.tags} & {"script", "link", "iframe", "object", "form"}
    assert not [name for _, attributes in content.tags for name in attributes if name.startswith("on")]
    (policy,) = (a["content"] for t, a in content.tags if t == "meta" and a.get("http-equiv"))
    assert policy is not None
    assert policy.startswith("default-src 'none'")


@pytest.mark.usefixtures("retrained")
def test_a_retrained_study_tells_its_test_its_mistakes_and_own_images_early() -> None:
    content = read(gather(STORAGE, STUDY))
    expected = ["answer", "data", "trust", "difference", "search", "others", "mistakes", "repeat"]
    assert content.headings == expected
    assert "test accuracy 0.8000" in " ".join(content.text.split())
    pictures = [attributes["alt"] for tag, attributes in content.tags if tag == "img"]
    assert "0, taken for 1" in pictures
    assert all(pictures)


def test_the_ten_best_and_every_check_are_told() -> None:
    found = facts(study(*(trial(n, value=0.5 + n / 100) for n in range(12)), trial(12, "failed")))
    text = read(found).text
    assert all(f"#{number}" in text for number in range(2, 12))
    assert "#1\n" not in text
    assert all(check.text in text for check in checks(found))


def test_an_explanation_is_told_step_by_step() -> None:
    content = read(facts(study(trial(0)), explanation=explanation()))
    shown = ("preset cnn-32-128-pool", "widths", "+5.0", "+4.0 to +6.0", "-4.0", "failed", "stem")
    assert [said for said in shown if said not in content.text] == []


def test_a_loss_is_told_in_its_own_unit_and_the_least_is_the_best() -> None:
    aim = Aim(metric=known_metric("log_loss"))
    fields = {"metric": "log_loss", "direction": "minimize"}
    record = study(
        trial(0, value=2.0, **fields), trial(1, value=0.7, **fields), aim=aim, direction="minimize"
    )
    assert "Trial #1 is the best network so far: validation log loss 0.7000" in read(facts(record)).text


def test_a_page_of_a_thousand_trials_stays_below_two_megabytes() -> None:
    params = {f"parameter_{i}": i / 7 for i in range(30)}
    curve = [0.1 * epoch for epoch in range(6)]
    trials = [
        trial(n, value=0.3 + n / 3000, values_by_epoch=curve, params=params | {"x": n / 3})
        for n in range(1000)
    ]
    content = read(facts(study(*trials)))
    (address,) = (a["href"] for t, a in content.tags if t == "a" and a["download"] == "trials.csv.gz")
    assert address is not None
    rows = list(
        csv.DictReader(io.StringIO(gzip.decompress(base64.b64decode(address.split(",")[1])).decode()))
    )
    assert [float(row["params_x"]) for row in rows] == [n / 3 for n in range(1000)]


def test_the_best_config_and_the_trials_can_be_saved() -> None:
    record = run_study(4).record
    content = read(facts(record))
    saved = {
        a["download"]: base64.b64decode((a["href"] or "").split(",")[1]).decode()
        for t, a in content.tags
        if t == "a"
    }
    assert record.best is not None
    assert json.loads(saved["config.json"]) == record.best.config
    assert len(saved["trials.csv"].splitlines()) == 1 + len(record.trials)


def test_the_search_can_be_repeated() -> None:
    record = study(trial(0), trial(1, "pruned"), trial(2, "too_large"), seed=7, definition="my study.py")
    text = read(facts(record)).text
    assert "mc1opt run --study 'my study.py' --name cnn-again --seed 7 --trials 2" in text
    assert "mc1opt replay --study cnn --storage s.db --trial 0" in text


def test_names_stay_text() -> None:
    record = study(
        trial(0, starting_point=HOSTILE, params={HOSTILE: 1}),
        trial(1, "foreign", foreign=HOSTILE),
        study=HOSTILE,
        definition=HOSTILE,
        data={"name": HOSTILE, "sha256": HOSTILE},
        task=Task(class_names=(HOSTILE, "b")),
    )
    found = facts(
        record,
        storage=f"{HOSTILE}.db",
        openings=[HOSTILE, HOSTILE],
        importances={HOSTILE: 1.0},
        explanation=explanation(source=HOSTILE, target=HOSTILE, inseparable=(HOSTILE,)),
    )
    content = read(found)
    assert not {tag for tag, _ in content.tags} & {"script", "img"}
    assert content.text.count("<script>alert(1)</script>") >= 8


# ---- The file --------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("retrained")
def test_the_page_is_written_beside_the_study_and_replaced() -> None:
    record = gather(STORAGE, STUDY).record
    path = report_path(STORAGE, record)
    assert write_report(STORAGE, STUDY) == path == Path("storage/s.db.files/reports/s.html")
    path.write_text("old")
    write_report(STORAGE, STUDY)
    assert path.read_text().startswith("<!doctype html>")
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert write_report(STORAGE, STUDY, Path("new/folder/x.html")).exists()


@pytest.mark.usefixtures("retrainable")
def test_a_page_that_cannot_be_written_is_an_error_or_a_warning() -> None:
    Path("file").write_text("")
    with pytest.raises(StorageError, match="file/x"):
        write_report(STORAGE, STUDY, Path("file/x.html"))
    said: dict[str, list[str]] = {"lines": [], "warnings": []}
    write_or_warn("missing.db", STUDY, said["lines"].append, said["warnings"].append)
    assert [len(lines) for lines in said.values()] == [0, 1]
    assert not Path("missing.db").exists()


def test_a_study_name_is_no_path() -> None:
    record = replace(study(trial(0)), folder="..%2Fx")
    assert report_path("s.db", record).parent == Path("s.db.files/reports")
