"""What searching by macro F1 gains where classes are unbalanced, with class weights and without.

At the top of the repository:

    python -m benchmarks.unbalanced [--trials 40] [--seeds 5]

Of CIFAR-10's training images a subset is made, in a temporary folder, in which the most frequent class has 20
times as many images as the rarest. The study `cnn` is searched on it, without starting points, by accuracy
and by macro F1, each with class weights and without. The winner of each search is trained again over seeds,
and judged on validation images that no search has seen. Every search and every training adds a line to the
file of results; what is there already is not done again. The test images stay closed.
"""

import argparse
import dataclasses
import hashlib
import json
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import add_results_option, append_result, machine_facts, machine_line, markdown_table
from mc1opt.config import config_from_json, config_id
from mc1opt.data.sources import find_data
from mc1opt.database.opening import open_storage
from mc1opt.database.ownership import this_owner
from mc1opt.database.ranking import by_expected_accuracy
from mc1opt.dataset import DataSet
from mc1opt.machine.devices import resolve_precision
from mc1opt.machine.resources import available_cpus
from mc1opt.metric import Aim, known_metric
from mc1opt.search.definition import load_definition
from mc1opt.search.run import run_search
from mc1opt.search.settings import SearchSettings
from mc1opt.spec import Fidelity, Training
from mc1opt.uncertainty import paired_test, spread
from mc1opt.workers.pool import ProcessPool
from mc1opt.workers.train import train

MOST, RAREST = 5_000, 250
"""Images of the most frequent class and of the rarest; the others lie between them, on a geometric scale."""
VALIDATION_SHARE = 0.2
ARMS = {
    "accuracy": Aim(),
    "macro F1": Aim(metric=known_metric("macro_f1")),
    "accuracy, weights": Aim(class_weights="balanced"),
    "macro F1, weights": Aim(metric=known_metric("macro_f1"), class_weights="balanced"),
}
JUDGE = known_metric("macro_f1")


def unbalanced(folder: Path) -> DataSet:
    """Writes the training images; the same ones every time."""
    source = find_data()
    labels = np.load(Path(source.folder) / "train_labels.npy")
    images = np.load(Path(source.folder) / "train_images.npy", mmap_mode="r")
    generator = np.random.default_rng(0)
    counts = np.geomspace(MOST, RAREST, source.classes).round().astype(int)
    chosen = np.sort(
        np.concatenate(
            [
                generator.choice(np.flatnonzero(labels == label), count, replace=False)
                for label, count in zip(generator.permutation(source.classes), counts, strict=True)
            ]
        )
    )
    np.save(folder / "train_images.npy", images[chosen])
    np.save(folder / "train_labels.npy", labels[chosen])
    digest = hashlib.sha256(source.sha256.encode() + chosen.tobytes()).hexdigest()
    return DataSet(
        name=f"own-{digest[:12]}",
        folder=str(folder),
        sha256=digest,
        train_images=len(chosen),
        validation_images=round(VALIDATION_SHARE * len(chosen)),
    )


def settings_of(options: argparse.Namespace, arm: str) -> SearchSettings:
    """A search as `mc1opt run` would have it; its trials validate on training images that they do not use."""
    short = max(1, options.epochs // 5)
    return SearchSettings(
        study=arm,
        trials=options.trials,
        fidelity=Fidelity(
            train_images=options.train_images,
            epochs=options.epochs,
            validation="unused",
            short_epochs=short,
        ),
        seed=options.seed,
        device="cpu",
        max_macs=options.max_macs,
        aim=ARMS[arm],
        precision=resolve_precision("cpu"),
        sampler="local",
        keep=0,
    )


def search(options: argparse.Namespace, arm: str, data: DataSet, pool: ProcessPool) -> dict[str, Any]:
    """The winner of a search, as it is stored."""
    definition = dataclasses.replace(load_definition("cnn").on(data), starting_points={})
    storage = open_storage(
        str(Path(data.folder) / f"{arm}.db"), create=True, owner=this_owner(), threads=pool.size
    )
    record = run_search(definition, settings_of(options, arm), storage, data, pool).record
    best = by_expected_accuracy(record.trials)[0]
    return {
        "trial": best.number,
        "config": best.config,
        "value": best.value,
        "accuracy": best.accuracy,
        "parameters": best.parameters,
    }


def train_winner(
    options: argparse.Namespace, arm: str, seed: int, winner: dict[str, Any], data: DataSet, pool: ProcessPool
) -> dict[str, Any]:
    """A winner on all images but those of validation: macro F1 and accuracy at the end."""
    training = Training(
        config=config_from_json(winner["config"]),
        fidelity=Fidelity(
            train_images=data.train_images - data.validation_images, epochs=options.final_epochs
        ),
        seed=1_000 + seed,
        data=data,
        precision=resolve_precision("cpu"),
        metric=JUDGE,
        class_weights=ARMS[arm].class_weights,
    )
    last = train(pool, training).results[-1]
    return {"config_id": config_id(training.config), "macro_f1": last.value, "accuracy": last.accuracy}


def table(options: argparse.Namespace, trained: dict[tuple[str, int], dict[str, Any]]) -> str:
    """Macro F1 and accuracy of each winner over the seeds, and the paired test against accuracy's."""
    rows = []
    for arm, aim in ARMS.items():
        values = {name: _over_seeds(options, trained, arm, name) for name in ("macro_f1", "accuracy")}
        if len(values["macro_f1"]) < options.seeds:
            continue
        by_accuracy = "accuracy, weights" if aim.class_weights else "accuracy"
        base = _over_seeds(options, trained, by_accuracy, "macro_f1")
        against = "-"
        if arm != by_accuracy and len(base) == options.seeds > 1:
            test = paired_test(values["macro_f1"], base)
            against = f"{100 * test.difference:+.1f} points, p {test.p:.3f}"
        cells = [f"{spread(each).mean:.4f} ± {spread(each).std or 0.0:.4f}" for each in values.values()]
        rows.append([arm, *cells, against])
    header = [
        "searched by",
        "macro F1, mean ± std",
        "accuracy, mean ± std",
        "macro F1 against accuracy's winner",
    ]
    return markdown_table(header, rows)


def _over_seeds(
    options: argparse.Namespace, trained: dict[tuple[str, int], dict[str, Any]], arm: str, name: str
) -> list[float]:
    return [trained[arm, seed][name] for seed in range(options.seeds) if (arm, seed) in trained]


def main() -> None:
    """Searches and trains what is missing, and prints the table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--trials", type=int, default=40)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the searches")
    parser.add_argument("--train-images", type=int, default=8_000)
    parser.add_argument("--epochs", type=int, default=10, help="of a trial")
    parser.add_argument("--final-epochs", type=int, default=20, help="of a winner's trainings")
    parser.add_argument("--max-macs", type=int, default=8_000_000)
    parser.add_argument("--workers", type=int, default=available_cpus())
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    add_results_option(parser, "unbalanced")
    options = parser.parse_args()
    machine = machine_facts()
    kept = ("trials", "seed", "train_images", "epochs", "max_macs")
    how = {name: getattr(options, name) for name in kept}
    with tempfile.TemporaryDirectory() as folder, ProcessPool(options.workers) as pool:
        data = unbalanced(Path(folder))
        lines = [json.loads(line) for line in _lines(options.results) if data.sha256 in line]
        lines = [line for line in lines if line["how"] == how]
        winners = {line["arm"]: line["winner"] for line in lines if "winner" in line}
        trained = {
            (line["arm"], line["trained_seed"]): line
            for line in lines
            if line.get("final_epochs") == options.final_epochs
        }
        for arm in options.arms:
            about = {"arm": arm, "how": how, "data": data.sha256}
            if arm not in winners:
                winners[arm] = search(options, arm, data, pool)
                append_result(options.results, machine, {**about, "winner": winners[arm]})

            def finish(seed: int, arm: str = arm, about: dict[str, Any] = about) -> None:
                figures = train_winner(options, arm, seed, winners[arm], data, pool)
                about = {**about, "trained_seed": seed, "final_epochs": options.final_epochs}
                append_result(options.results, machine, {**about, **figures})
                trained[arm, seed] = figures

            missing = [seed for seed in range(options.seeds) if (arm, seed) not in trained]
            with ThreadPoolExecutor(options.workers) as threads:
                list(threads.map(finish, missing))
    print(f"{machine_line(machine)}\n{how}, {options.seeds} seeds\n\n{table(options, trained)}")


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


if __name__ == "__main__":
    main()
