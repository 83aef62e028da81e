"""`mc1opt export` after a real search, from the command to the files; and the file where nothing else is."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mc1opt.config import CLASS_NAMES
from mc1opt.inference.open_model import open_model
from mc1opt.training.model_folder import weights_model
from tests.support.command import files_below, stored_study
from tests.support.trained import logits_of, random_images

FIELDS = ["format", "path", "bytes", "max_logit_difference", "different_decisions", "images", "latency"]
LABELS_AND_LOGITS = """
import json, sys
import numpy, onnxruntime

for name in ("torch", "onnx", "mc1opt"):
    try:
        __import__(name)
    except ImportError:
        continue
    raise SystemExit(f"{name} can be imported here")
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
metadata = session.get_modelmeta().custom_metadata_map
images = numpy.load(sys.argv[2])
answers = [session.run(["logits"], {"images": part})[0] for part in (images[:1], images[1:])]
json.dump([json.loads(metadata["labels"]), numpy.concatenate(answers).tolist()], sys.stdout)
"""


def best(study: str = "tiny") -> int:
    return stored_study(study)["best"]["number"]


def test_right_after_a_search_its_best_trial_is_exported_and_said_to_be_untested(
    finished: Path, mc1opt_here
) -> None:
    result = mc1opt_here("export", "--study", "tiny", "--data", "images")
    assert (result.returncode, result.stderr) == (0, "")
    value = stored_study("tiny")["best"]["value"]
    title, file, *_ = result.stdout.splitlines()
    assert title.startswith(f"Exporting trial {best()} of study tiny: validation {value:.4f}, one seed")
    assert title.endswith(", not tested")
    path = finished / f"storage/exports/tiny/trial-{best()}.onnx"
    assert file.startswith("onnx ")
    assert f"trial-{best()}.onnx ({path.stat().st_size:,} bytes)" in file


@pytest.mark.slow
def test_json_lists_each_format_on_standard_output_alone(finished: Path, mc1opt_here) -> None:
    formats = ["safetensors", "pt2", "python"]
    options = [option for name in formats for option in ("--format", name)]
    result = mc1opt_here("export", "--study", "tiny", *options, "--output", "out", "--json")
    assert result.returncode == 0, result.stderr
    files = json.loads(result.stdout)
    assert [file["format"] for file in files] == formats
    assert {path.name for path in Path("out").iterdir()} == {Path(file["path"]).name for file in files}
    for file in files:
        assert list(file) == FIELDS
        assert file["bytes"] == Path(file["path"]).stat().st_size
        assert file["max_logit_difference"] < 1e-3
        assert file["different_decisions"] == 0
        assert set(file["latency"]) == {"batch_1_ms", "batch_256_ms"}
    assert result.stderr.startswith("Exporting trial ")


def test_the_exported_weights_are_those_that_the_search_kept(finished: Path, mc1opt_here) -> None:
    mc1opt_here("export", "--study", "tiny", "--format", "safetensors", "--output", "out")
    opened = open_model(Path(f"out/trial-{best()}.safetensors"), Path("none"))
    from mc1opt.config import config_from_json

    config = config_from_json(stored_study("tiny")["best"]["config"])
    kept = Path(f"storage/checkpoints/tiny/trial-{best():05}.safetensors")
    images = random_images(5)
    np.testing.assert_array_equal(
        opened.run(images.numpy())[0], logits_of(weights_model(kept, config), images)
    )


def test_a_failed_trial_is_refused_with_those_that_can_be_exported(finished: Path, mc1opt_here) -> None:
    trials = stored_study("tiny")["trials"]
    failed = next(trial["number"] for trial in trials if trial["outcome"] == "failed")
    before = files_below(finished)
    result = mc1opt_here("export", "--study", "tiny", "--trial", str(failed))
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(
        f"Error: trial {failed} of study 'tiny' was not trained to its end (failed"
    )
    complete = [str(trial["number"]) for trial in trials if trial["outcome"] == "complete"]
    assert result.stderr.endswith(f"Trials with kept weights: {', '.join(complete)}.\n")
    assert files_below(finished) == before


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--study", "other"], 1, "there is no study 'other' in this database. It has: tiny."),
        (["--study", "tiny", "--format", "onix"], 2, "unknown format 'onix'. Allowed: onnx, pt2,"),
        (["--model", "none"], 1, "there is no model folder none."),
        ([], 2, "give --study NAME or --model DIR"),
    ],
    ids=["study", "format", "model", "nothing"],
)
def test_wrong_use_is_one_message_and_writes_nothing(
    finished: Path, mc1opt_here, arguments: list[str], code: int, message: str
) -> None:
    before = files_below(finished)
    result = mc1opt_here("export", *arguments)
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.startswith(f"Error: {message}")
    assert files_below(finished) == before


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_onnx_file_runs_where_only_onnxruntime_and_numpy_are(finished: Path, mc1opt_here) -> None:
    mc1opt_here("export", "--study", "tiny", "--output", "out")
    subprocess.run([sys.executable, "-m", "venv", "fresh"], check=True, timeout=300)
    pip = ["fresh/bin/pip", "install", "--quiet", "onnxruntime", "numpy"]
    installed = subprocess.run(pip, capture_output=True, text=True, timeout=500, check=False)
    if installed.returncode != 0:
        pytest.skip(f"needs a package index: {installed.stderr.splitlines()[-1]}")
    images = random_images(8).numpy()
    np.save("images.npy", images)
    model = Path(f"out/trial-{best()}.onnx")
    command = ["fresh/bin/python", "-I", "-c", LABELS_AND_LOGITS, str(model), "images.npy"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
    assert result.returncode == 0, result.stderr
    labels, logits = json.loads(result.stdout)
    assert labels == list(CLASS_NAMES)
    np.testing.assert_allclose(logits, open_model(model, Path("none")).run(images)[0], atol=1e-4)
