"""Seconds of an epoch, timed in turn: by a real run on a few images."""

from pathlib import Path

import pytest

from benchmarks.published_arms import BASE
from benchmarks.published_norm import NORM_ARMS
from mc1opt.files import read_lines
from tests.support.command import benchmark
from tests.support.image_sets import write_binary_folder


@pytest.mark.slow
def test_each_round_times_every_arm_and_a_run_is_a_line(tmp_path: Path) -> None:
    write_binary_folder(tmp_path / "images")
    results = tmp_path / "seconds.jsonl"
    options = ["--rounds", "2", "--images", "100", "--data", str(tmp_path / "images"), "--device", "cpu"]
    result = benchmark("published_seconds", *options, "--results", str(results))
    assert result.returncode == 0, result.stderr
    (line,) = read_lines(results)
    assert (line["base"], line["images"]) == (BASE, 100)
    assert list(line["seconds"]) == list(NORM_ARMS[BASE].values())
    for name, seconds in line["seconds"].items():
        assert len(seconds) == 2
        assert all(each > 0.0 for each in seconds)
        assert f"| `{name}` |" in result.stdout
