"""What is found in images, and that a search never looks at the test images for it."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mc1opt.data import examine as examine_module
from mc1opt.data.cache import fetch_lock, write_entry
from mc1opt.data.examine import Finding, examine, serious_findings
from mc1opt.data.formats import Arrays
from mc1opt.data.splits import split
from mc1opt.dataset import DataSet
from mc1opt.errors import DataError
from tests.support.image_sets import make_arrays

ARRAYS = make_arrays(train_images=1000)


def stored(arrays: Arrays) -> DataSet:
    with fetch_lock():
        return write_entry(arrays, "a test").data


def kinds(findings: list[Finding]) -> dict[str, bool]:
    return {finding.kind: finding.serious for finding in findings}


def test_of_good_images_only_the_least_difference_is_told() -> None:
    found = examine(stored(ARRAYS))
    assert found.counts["3"] == (90, 10, 5)
    assert kinds(found.findings) == {"least difference": True}  # 100 images show little
    assert found.least_difference == pytest.approx(1.96 * (2 * 0.9 * 0.1 / 100) ** 0.5, rel=1e-3)
    assert "100 validation images can show a difference of 8.3 points" in found.findings[0].line()


def test_classes_that_are_too_small_are_told() -> None:
    keep = np.concatenate(
        [np.flatnonzero(ARRAYS.train_labels < 8), np.flatnonzero(ARRAYS.train_labels == 8)[:4]]
    )
    keep = np.concatenate([keep, np.flatnonzero(ARRAYS.train_labels == 9)[:40]])
    test = ARRAYS.test_labels != 9
    data = stored(
        Arrays(
            ARRAYS.train_images[keep],
            ARRAYS.train_labels[keep],
            ARRAYS.test_images[test],
            ARRAYS.test_labels[test],
        )
    )
    found = {finding.kind: finding for finding in examine(data).findings}
    assert found["too few to validate"].serious
    assert ": 8, 9." in found["too few to validate"].what
    assert found["unbalanced"].what == "The largest class has 100 training images, the smallest 4."
    assert "class 9" in found["no test images"].what


def test_a_class_without_images_is_told() -> None:
    data = stored(replace(ARRAYS, class_names=tuple("abcdefghijk")))
    assert kinds(serious_findings(data))["no images"]


def with_copies(source: np.ndarray, count: int, target: str) -> Arrays:
    images = np.array(getattr(ARRAYS, f"{target}_images"))
    images[:count] = source[:count]
    return replace(ARRAYS, **{f"{target}_images": images})


def test_images_that_are_also_test_images_are_a_leak_and_only_the_examination_says_so() -> None:
    data = stored(with_copies(ARRAYS.train_images, 3, "test"))
    names = [f"train/{number}.png" for number in range(1000)], [f"test/{number}.png" for number in range(50)]
    (leak,) = [finding for finding in examine(data, *names).findings if finding.kind == "test leak"]
    assert leak.serious
    assert "3 test images have the same pixels as a training image" in leak.what
    assert "train/2.png = test/2.png" in leak.what
    assert "test leak" not in kinds(serious_findings(data))


def test_a_search_never_looks_at_the_test_images(monkeypatch: pytest.MonkeyPatch) -> None:
    data = stored(ARRAYS)
    for path in Path(data.folder).glob("test_*.npy"):
        path.unlink()
    assert kinds(serious_findings(data)) == {"least difference": True}
    with pytest.raises(DataError, match=r"test_images\.npy"):
        examine(data)


def test_what_a_search_says_is_found_once_and_kept_beside_the_images(monkeypatch: pytest.MonkeyPatch) -> None:
    data = stored(ARRAYS)
    found = serious_findings(data)
    with monkeypatch.context() as patch:
        patch.setattr(examine_module, "duplicates", None)
        assert serious_findings(data) == found
    for damaged in ("", "{", '{"sha256": 5}', f'{{"sha256": "{data.sha256}", "findings": [{{"kind": 1}}]}}'):
        (Path(data.folder) / "findings.json").write_text(damaged)
        assert serious_findings(data) == found


def test_copies_that_train_and_validate_are_told_and_labels_that_contradict() -> None:
    train, validation = split(ARRAYS.train_labels, 100, 900)
    images = np.array(ARRAYS.train_images)
    images[validation[:5]] = images[train[:5]]
    images[train[20]] = images[train[10]]
    labels = np.array(ARRAYS.train_labels)
    data = stored(replace(ARRAYS, train_images=images))
    found = {finding.kind: finding for finding in examine(data).findings}
    assert "5 validation images have the same pixels as a training image" in found["validation leak"].what
    assert "1 training image have the same pixels as another one" in found["duplicates"].what
    contrary = sum(labels[validation[:5]] != labels[train[:5]]) + (labels[train[20]] != labels[train[10]])
    assert ("contrary labels" in found) == bool(contrary)
    assert found["validation leak"].serious


def test_nothing_is_written_by_an_examination() -> None:
    data = stored(ARRAYS)
    before = sorted(Path(data.folder).iterdir())
    examine(data)
    assert sorted(Path(data.folder).iterdir()) == before
    assert examine_module.examined_test_images(data)[1].tolist() == ARRAYS.test_labels.tolist()
