"""The searches of `race.py` that are not mc1opt's, each as its documentation shows it.

    python -m benchmarks.race_peers optuna FOLDER ...    one of the processes that share a study
    python -m benchmarks.race_peers ray FOLDER ...       all of a Ray Tune search

`optuna` is the loop of Optuna's tutorials: an objective that reports each epoch and asks the pruner, TPE with
groups (documented for conditional search spaces), the median pruner, several processes on a journal file.
`ray` is the search of Ray Tune's PyTorch tutorial: ASHA with a reduction factor of 2 and a CPU for each
trial, with Ray's `OptunaSearch`, whose define-by-run form takes the search space as it is. Actors are reused,
so that a trial needs no new process. Not here: training (`tutorial.py`, or mc1opt's own), and what comes of a
search.
"""

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import TPESampler
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FixedTrial

from mc1opt.config import Config, config_id
from mc1opt.data.sources import find_data
from mc1opt.database.records import OUTCOME
from mc1opt.dataset import CIFAR10_SHAPE, DataSet
from mc1opt.files import append_line
from mc1opt.machine.devices import resolve_precision
from mc1opt.models.cost import cost
from mc1opt.paths import user_path
from mc1opt.search.definition import load_definition
from mc1opt.seeds import derive_seed
from mc1opt.spec import Fidelity, Training, TrainingFailed
from mc1opt.workers.process import load_trainer

DEFINITION = load_definition("cnn")
STUDY = "race"
"""The name of each study."""
RAY_TRIALS = "ray.jsonl"
"""Where a Ray Tune search leaves its trials."""
METRIC = "accuracy"


def race_fidelity(data: DataSet) -> Fidelity:
    """That of a search with mc1opt's defaults on CIFAR-10; of fewer images as large a part."""
    images = DEFINITION.fidelity.train_images * (data.train_images - data.validation_images) // 45_000
    return Fidelity(train_images=images, epochs=DEFINITION.fidelity.epochs, validation="unused")


def race_training(config: Config, data: DataSet, seed: int) -> Training:
    """A training of the race, in this machine's precision, which only mc1opt's own trainer goes by."""
    fidelity, precision = race_fidelity(data), resolve_precision("cpu")
    return Training(config=config, fidelity=fidelity, seed=seed, data=data, precision=precision)


def too_large(config: Config) -> bool:
    """Whether a network is above the limit of mc1opt's searches; such draws are not trained by any arm."""
    return cost(config.architecture, CIFAR10_SHAPE).macs > DEFINITION.max_macs


def tpe(seed: int) -> TPESampler:
    """Optuna's TPE in its form for conditional search spaces."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return TPESampler(multivariate=True, group=True, seed=seed % 2**32)


def journal(folder: Path) -> JournalStorage:
    """The storage that the processes of an Optuna search share."""
    return JournalStorage(JournalFileBackend(str(folder / "journal.log")))


def search_with_optuna(folder: Path, trainer_name: str, data: DataSet, seed: int, until: float) -> None:
    """Takes part in the study in `folder` until that time (seconds since 1970) and a running trial's end.

    Args:
        folder: of the search.
        trainer_name: "module:function", what trains.
        data: the images.
        seed: of this process's sampler and of its trainings.
        until: a Unix time.
    """
    trainer = load_trainer(trainer_name)

    def objective(trial: optuna.Trial) -> float:
        config = DEFINITION.config(trial)
        if too_large(config):
            trial.set_user_attr(OUTCOME, "too_large")
            raise optuna.TrialPruned
        accuracy = 0.0
        try:
            for result in trainer(race_training(config, data, derive_seed(seed, trial.number))):
                accuracy = result.accuracy
                trial.report(accuracy, result.epoch)
                if trial.should_prune():
                    raise optuna.TrialPruned
        except TrainingFailed as failure:
            trial.set_user_attr(OUTCOME, "failed")
            raise optuna.TrialPruned from failure
        return accuracy

    study = optuna.load_study(
        study_name=STUDY,
        storage=journal(folder),
        sampler=tpe(seed),
        pruner=optuna.pruners.MedianPruner(),
    )
    study.optimize(objective, timeout=until - time.time())


def search_space(trial: optuna.Trial) -> None:
    """The search space in the form that Ray's `OptunaSearch` takes: it keeps what is suggested."""
    DEFINITION.search_space(trial, DEFINITION.data)


def train_for_ray(params: dict[str, Any], *, trainer_name: str, data: DataSet, seed: int) -> None:
    """Trains a trial of Ray Tune's, and reports each epoch."""
    from ray import tune  # noqa: PLC0415  (only this arm needs it)

    config = DEFINITION.config(FixedTrial(params))
    if too_large(config):
        tune.report({METRIC: 0.0, OUTCOME: "too_large"})
        return
    training = race_training(config, data, derive_seed(seed, config_id(config)))
    try:
        for result in load_trainer(trainer_name)(training):
            last = result.epoch == training.fidelity.epochs - 1
            # Of a trial that has another end than its last epoch, this is what ASHA made of it.
            tune.report({METRIC: result.accuracy, OUTCOME: "complete" if last else "pruned"})
    except TrainingFailed:
        tune.report({METRIC: 0.0, OUTCOME: "failed"})


def search_with_ray(folder: Path, trainer_name: str, data: DataSet, seed: int, until: float) -> None:
    """A whole search; see `search_with_optuna`. Each ended trial becomes a line of the file RAY_TRIALS."""
    import ray  # noqa: PLC0415
    from ray import tune  # noqa: PLC0415
    from ray.tune.schedulers import ASHAScheduler  # noqa: PLC0415
    from ray.tune.search.optuna import OptunaSearch  # noqa: PLC0415

    # Not those of `__main__`, as which this module runs: Ray's processes import them by name.
    from benchmarks.race_peers import search_space, train_for_ray  # noqa: PLC0415

    class Recorder(tune.Callback):
        """Keeps the trials that ended before the time was up."""

        def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
            """Ray's hook for a trial that has ended, by itself or by ASHA."""
            del iteration, trials, info
            last = trial.last_result
            if METRIC in last:  # else the time was up before its first epoch
                line = {"ended": time.time(), "outcome": last[OUTCOME], "value": last[METRIC]}
                append_line(folder / RAY_TRIALS, line | {"params": trial.config})

    ray.init(num_cpus=2, include_dashboard=False)
    trainable = tune.with_parameters(train_for_ray, trainer_name=trainer_name, data=data, seed=seed)
    tuner = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            metric=METRIC,
            mode="max",
            search_alg=OptunaSearch(search_space, metric=METRIC, mode="max", sampler=tpe(seed)),
            scheduler=ASHAScheduler(max_t=DEFINITION.fidelity.epochs, grace_period=1, reduction_factor=2),
            num_samples=-1,
            max_concurrent_trials=2,
            reuse_actors=True,
            time_budget_s=until - time.time(),
        ),
        run_config=tune.RunConfig(storage_path=str(folder / "ray"), callbacks=[Recorder()]),
    )
    tuner.fit()


def main() -> None:
    """Runs one of the two."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    searches = {"optuna": search_with_optuna, "ray": search_with_ray}
    parser.add_argument("search", choices=searches)
    parser.add_argument("folder", type=user_path)
    parser.add_argument("--trainer", required=True, metavar="MODULE:FUNCTION")
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--until", type=float, required=True, help="Unix time at which the search ends")
    parser.add_argument("--data", type=user_path)
    options = parser.parse_args()
    data = find_data(options.data)
    searches[options.search](options.folder, options.trainer, data, options.seed, options.until)


if __name__ == "__main__":
    main()
