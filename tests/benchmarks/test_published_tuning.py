"""Validation curves of presets: by a real run on a few images, which is not trained again."""

from pathlib import Path

import pytest

from mc1opt.config import config_id
from mc1opt.files import read_lines
from mc1opt.presets import PRESETS
from tests.support.command import benchmark
from tests.support.image_sets import write_binary_folder

PRESET = PRESETS["mlp-128-64"]


@pytest.mark.slow
def test_each_training_is_a_line_and_what_is_there_is_not_trained_again(tmp_path: Path) -> None:
    write_binary_folder(tmp_path / "images")
    results = tmp_path / "tuning.jsonl"

    def run(*options: str) -> str:
        options = (*options, "--epochs", "2", "--data", str(tmp_path / "images"), "--results", str(results))
        ended = benchmark("published_tuning", PRESET.name, *options)
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    run()
    (first,) = read_lines(results)
    assert first["config_id"] == config_id(PRESET.config)
    assert len(first["losses"]) == len(first["values_by_epoch"]) == 2
    said = run("--seeds", "2")
    again, second = read_lines(results)
    assert again == first
    assert second["seed"] != first["seed"]
    for epoch, values in enumerate(zip(first["values_by_epoch"], second["values_by_epoch"], strict=True)):
        assert f"epoch   {epoch + 1}: {sum(values) / 2:.4f} ± " in said
    run("--seeds", "1", "--learning-rate", "0.01")
    assert [line["config_id"] == first["config_id"] for line in read_lines(results)] == [True, True, False]
