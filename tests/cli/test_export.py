"""`mc1opt export` after a real search, from the command to the files; and the file where nothing else is."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mc1opt.dataset import CIFAR10_SHAPE
from mc1opt.inference.open_model import open_model
from mc1opt.training.model_folder import weights_model
from tests.support.command import output_of, stored_study
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


@pytest.mark.slow
def test_right_after_a_search_its_best_trial_is_exported_and_said_to_be_untested(
    finished: Path, mc1opt_here
) -> None:
    result = output_of(mc1opt_here("export", "--study", "tiny", "--data", "images"))
    value = stored_study("tiny")["best"]["value"]
    title, file, *_ = result.splitlines()
    assert f" {best()} " in title
    assert f" {value:.4f}" in title
    assert "not tested" in title
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


def test_the_exported_weights_are_those_that_the_search_kept(finished: Path, mc1opt_here) -> None:
    mc1opt_here("export", "--study", "tiny", "--format", "safetensors", "--output", "out")
    opened = open_model(Path(f"out/trial-{best()}.safetensors"), Path("none"))
    from mc1opt.config import config_from_json

    config = config_from_json(stored_study("tiny")["best"]["config"])
    kept = Path(f"storage/checkpoints/tiny/trial-{best():05}.safetensors")
    images = random_images(5)
    np.testing.assert_array_equal(
        opened.run(images.numpy())[0], logits_of(weights_model(kept, config, CIFAR10_SHAPE), images)
    )


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
    assert labels == list("0123456789")
    np.testing.assert_allclose(logits, open_model(model, Path("none")).run(images)[0], atol=1e-4)
