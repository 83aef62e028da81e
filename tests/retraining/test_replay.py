"""A trial trained again: equal, different from an epoch on, or not to be compared here."""

import io
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import BaseTrial

from mc1opt.config import Config, Muon
from mc1opt.database import records
from mc1opt.database.opening import load_study, open_storage
from mc1opt.database.records import StudyRecord
from mc1opt.errors import DataError, Mc1optError, StorageError, UsageError
from mc1opt.files import read_lines
from mc1opt.machine import devices, environment
from mc1opt.machine.devices import bfloat16_instructions
from mc1opt.machine.environment import cpu_capability
from mc1opt.retraining import replay as replay_module
from mc1opt.retraining.replay import REPLAYS, Replay, replay
from mc1opt.seeds import derive_seed
from tests.support.curves import SWITCHES_VARIABLE, CurvePool, Switches
from tests.support.image_sets import write_arrays_folder
from tests.support.retraining import MODELS, STORAGE, STUDY, curve_study, retrainable, retrainable_folder
from tests.support.studies import EPOCHS, SEED, smooth_space, stored

__all__ = ["retrainable", "retrainable_folder"]


def replayed(number: int, **changes: Any) -> Replay:
    fields: dict[str, Any] = {"data": None, "output": io.StringIO(), "new_pool": CurvePool}
    return replay(STORAGE, STUDY, number, **(fields | changes))


def attributes(number: int) -> dict[str, Any]:
    return load_study(open_storage(STORAGE, create=False), STUDY).get_trials()[number].user_attrs


def change(number: int, key: str, value: Any) -> None:
    """Changes an attribute of a stored trial, as if it had been trained otherwise."""
    storage = open_storage(STORAGE, create=False)
    trial = load_study(storage, STUDY).get_trials()[number]
    storage.set_user_attributes(trial._trial_id, {key: value})


def change_versions(number: int, **versions: Any) -> None:
    change(number, records.VERSIONS, attributes(number)[records.VERSIONS] | versions)


@pytest.fixture(scope="session")
def on_cpu_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a study on the CPU, with complete, pruned and diverged trials: not to be changed."""
    folder = tmp_path_factory.mktemp("on-cpu")
    rules = tmp_path_factory.mktemp("rules")
    Switches(rules).add("diverge", seed=derive_seed(SEED, 4), epoch=2)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("MC1OPT_DATA", str(folder / "cache"))
        patch.setenv(SWITCHES_VARIABLE, str(rules))
        curve_study(trials=16, pruner="median", device="cpu")
    return folder


@pytest.fixture
def on_cpu(on_cpu_folder: Path, switches: Switches, tmp_path: Path) -> StudyRecord:
    """That study in the test's own folder, and its record."""
    shutil.copytree(on_cpu_folder, tmp_path, dirs_exist_ok=True)
    return stored(STORAGE, STUDY)


def first_with(record: StudyRecord, outcome: str) -> int:
    return next(trial.number for trial in record.trials if trial.outcome == outcome)


# ---- Equal or not ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("outcome", ["complete", "pruned"])
def test_a_trial_has_the_same_curve_again_as_far_as_it_came(
    on_cpu: StudyRecord, switches: Switches, outcome: str
) -> None:
    number = first_with(on_cpu, outcome)
    epochs = len(on_cpu.trials[number].values_by_epoch)
    assert (epochs < EPOCHS) == (outcome == "pruned")
    result = replayed(number)
    assert result == Replay(STUDY, number, True, epochs, None, None)
    assert f" {epochs} epoch" in result.line()
    (told,) = read_lines(MODELS / REPLAYS)
    assert told.pop("time")
    assert told == {"config_id": on_cpu.trials[number].config_id, **result.to_json()}
    assert [epoch["seed"] for epoch in switches.epochs()] == [derive_seed(SEED, number)] * epochs


def test_a_trial_that_diverged_must_diverge_in_the_same_epoch(
    on_cpu: StudyRecord, switches: Switches
) -> None:
    switches.add("diverge", seed=derive_seed(SEED, 4), epoch=2)
    assert replayed(4) == Replay(STUDY, 4, True, 2, None, None, diverged=True)
    switches.clear()
    well = replayed(4)
    assert (well.equal, well.difference.epoch, well.difference.stored) == (False, 3, None)
    switches.add("diverge", seed=derive_seed(SEED, 4), epoch=1)
    sooner = replayed(4)
    assert (sooner.equal, sooner.difference.epoch, sooner.difference.replayed) == (False, 2, None)
    assert "the training loss is nan" in sooner.line()


@pytest.mark.parametrize("epochs", [0, 2])
def test_of_a_trial_that_diverged_at_once_no_curve_is_called_equal(epochs: int) -> None:
    line = Replay(STUDY, 4, True, epochs, None, None, diverged=True).line()
    assert f"diverges again in epoch {epochs + 1}" in line
    assert ("equal" in line) == (epochs > 0)


def test_the_first_epoch_that_differs_is_named_with_both_values(on_cpu: StudyRecord) -> None:
    number = first_with(on_cpu, "complete")
    losses = list(attributes(number)[records.LOSSES])
    losses[2] += 1e-15
    change(number, records.LOSSES, losses)
    result = replayed(number)
    assert result.equal is False
    assert result.difference.epoch == 3
    assert result.difference.stored["loss"] == losses[2] != result.difference.replayed["loss"]
    assert result.difference.stored["accuracy"] == result.difference.replayed["accuracy"]
    assert "epoch 3" in result.line()
    assert result.to_json()["difference"]["epoch"] == 3


def test_another_seed_is_noticed_in_the_first_epoch_with_what_else_changed(on_cpu: StudyRecord) -> None:
    number = first_with(on_cpu, "complete")
    change(number, records.SEED, 1)
    change_versions(number, mc1opt="0.0.1")
    result = replayed(number)
    assert result.difference.epoch == 1
    assert "mc1opt was 0.0.1" in result.line()


def test_the_stored_precision_and_threads_are_used(on_cpu: StudyRecord) -> None:
    number = first_with(on_cpu, "complete")
    cpu = cpu_capability() + bfloat16_instructions("cpu", "bfloat16")
    change_versions(number, precision="bfloat16", threads=3, cpu=cpu)
    seen = []

    class Pool(CurvePool):
        def train(self, training, on_epoch):
            seen.append((training.precision, training.threads))
            return super().train(training, on_epoch)

    def new_pool(threads: int) -> Pool:
        seen.append(threads)
        return Pool()

    replayed(number, new_pool=new_pool)
    assert seen == [3, ("bfloat16", 3)]


# ---- Not to be compared ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "value"), [("torch", "1.0"), ("cpu", "VAX")])
def test_on_another_torch_or_cpu_it_says_so_instead_of_training(
    on_cpu: StudyRecord, switches: Switches, name: str, value: str
) -> None:
    number = first_with(on_cpu, "complete")
    change_versions(number, **{name: value})
    result = replayed(number)
    assert result.equal is None
    assert value in result.line()
    assert switches.epochs() == []


def test_muon_is_replayed_only_where_bfloat16_is_computed_with_the_same(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def muon_space(trial: BaseTrial) -> Config:
        muon = Muon(learning_rate=0.02, sgd_learning_rate=0.1)
        return smooth_space(trial).model_copy(update={"optimizer": muon})

    monkeypatch.setenv(SWITCHES_VARIABLE, str(tmp_path))
    monkeypatch.setattr(devices, "cpu_flags", lambda: frozenset({"avx512_bf16"}))
    study = curve_study(trials=1, search_space=muon_space, device="cpu")
    number = first_with(study, "complete")
    assert replayed(number).equal
    monkeypatch.setattr(devices, "cpu_flags", lambda: frozenset({"avx512_bf16", "amx_bf16"}))
    result = replayed(number)
    assert result.equal is None
    assert "amx_bf16" in result.reason


def test_on_another_gpu_it_says_so(on_cpu: StudyRecord, monkeypatch: pytest.MonkeyPatch) -> None:
    """There is none here: that there is one, and which, is told by others."""
    number = first_with(on_cpu, "complete")
    change(number, records.DEVICE, "cuda")
    change_versions(number, gpu="NVIDIA A100")
    monkeypatch.setattr(replay_module, "resolve_device", lambda name: name)
    monkeypatch.setattr(environment, "gpu_model", lambda: "NVIDIA H100")
    result = replayed(number)
    assert result.equal is None
    assert re.search("A100.*H100", result.reason)
    monkeypatch.setattr(environment, "gpu_model", lambda: "NVIDIA A100")
    assert replayed(number).equal


def test_on_a_machine_without_the_trials_device_it_says_so(retrainable: StudyRecord) -> None:
    torch = pytest.importorskip("torch")
    if torch.cuda.is_available():
        pytest.skip("the device is here")
    result = replayed(0)  # these curves were recorded as those of CUDA
    assert result.equal is None
    assert "cuda" in result.reason


# ---- Wrong use -------------------------------------------------------------------------------------------


def test_a_trial_without_a_curve_is_refused() -> None:
    record = curve_study(trials=2, max_macs=1_000_000)
    number = first_with(record, "too_large")
    with pytest.raises(UsageError, match=rf"trial {number} of study 's' .*too large"):
        replayed(number)


def test_other_trials_studies_and_images_are_refused(on_cpu: StudyRecord, switches: Switches) -> None:
    with pytest.raises(UsageError, match=r"99.* 0 to \d+"):
        replayed(99)
    with pytest.raises(StorageError, match="study 'x'"):
        replay(STORAGE, "x", 0, data=None, output=io.StringIO())
    write_arrays_folder(Path("others"), train_images=100)
    with pytest.raises(DataError, match="own-"):
        replayed(first_with(on_cpu, "complete"), data=Path("others"))
    assert switches.epochs() == []


def test_a_worker_that_dies_is_an_error_and_no_difference(on_cpu: StudyRecord, switches: Switches) -> None:
    switches.add("kill")
    with pytest.raises(Mc1optError, match=r"\(killed\)"):
        replayed(first_with(on_cpu, "complete"))
