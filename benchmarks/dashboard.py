"""How long the dashboard's page of a large study takes while a search goes on writing to it.

At the top of the repository:

    python -m benchmarks.dashboard [--trials 1000] [--more 60]

A study of made-up learning curves gets `--trials` trials; then `mc1opt dashboard` serves it while a search of
this process adds `--more` trials, with epochs that sleep. Meanwhile the page's data are asked for again and
again, in full, as a browser does that opens the page. At the end the trials are counted: none may be lost.

Not here: what the page shows (`tests/browser`).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.common import add_results_option, append_result, machine_facts, machine_line
from benchmarks.overhead import EPOCH_SECONDS_VARIABLE, SLEEPING_TRAINER
from mc1opt.dashboard.pages import DashboardWriter
from mc1opt.data.sources import find_data
from mc1opt.database.opening import open_storage
from mc1opt.database.ownership import this_owner
from mc1opt.database.studies import read_study
from mc1opt.search.definition import load_definition
from mc1opt.search.run import run_search
from mc1opt.search.settings import SearchSettings
from mc1opt.spec import Fidelity
from mc1opt.workers.pool import Pool, ProcessPool
from tests.support.curves import CurvePool

TARGET_SECONDS = 2.0
WORKERS = 2


def search(folder: Path, trials: int, pool: Pool) -> None:
    """Goes on with the study in `folder` until it has `trials` trials."""
    path = str(folder / "study.db")
    definition = load_definition("cnn")
    settings = SearchSettings(
        study="large",
        trials=trials,
        fidelity=Fidelity(train_images=20_000, epochs=4),
        seed=0,
        device="cpu",
        max_macs=definition.max_macs,
        sampler="random",
        confirm=0,
    )
    storage = open_storage(path, create=True, owner=this_owner(), threads=WORKERS)
    run_search(definition, settings, storage, find_data(), pool, observers=(DashboardWriter(path),))


def measure(folder: Path, trials: int, more: int) -> dict[str, Any]:
    """Seconds of each answer with the whole study, and how many trials there are before and after."""
    print(f"making a study of {trials} trials", file=sys.stderr, flush=True)
    with CurvePool(WORKERS) as pool:
        search(folder, trials, pool)
    command = [Path(sys.executable).parent / "mc1opt", "dashboard", "--storage", folder / "study.db"]
    with subprocess.Popen(
        [*command, "--study", "large", "--port", "0"], stdout=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        try:
            page = server.stdout.readline().split()[1].replace("/dashboard/", "/api/")
            os.environ[EPOCH_SECONDS_VARIABLE] = "0.5"
            with ProcessPool(WORKERS, trainer=SLEEPING_TRAINER) as pool:
                writing = threading.Thread(target=search, args=(folder, trials + more, pool))
                writing.start()
                seconds = []
                while writing.is_alive():
                    started = time.monotonic()
                    with urllib.request.urlopen(f"{page}?after=0", timeout=60) as answer:
                        detail = json.load(answer)
                    seconds.append(time.monotonic() - started)
                    writing.join(timeout=1.0)
        finally:
            server.terminate()
    counted = [t for t in read_study(str(folder / "study.db"), "large").trials if t.values_by_epoch]
    return {
        "trials": trials,
        "counted_at_the_end": len(counted),
        "expected_at_the_end": trials + more,
        "answers": len(seconds),
        "median_seconds": statistics.median(seconds),
        "greatest_seconds": max(seconds),
        "bytes": len(json.dumps(detail)),
    }


def main() -> None:
    """Measures, adds a line to the results, and prints it."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--more", type=int, default=60)
    add_results_option(parser, "dashboard")
    options = parser.parse_args()
    machine = machine_facts()
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), options.trials, options.more)
    append_result(options.results, machine, figures)
    lost = figures["expected_at_the_end"] - figures["counted_at_the_end"]
    print(
        f"{machine_line(machine)}\n\n"
        f"The page of {figures['trials']:,} trials and more ({figures['bytes'] / 1e6:.1f} MB), asked for "
        f"{figures['answers']} times while a search wrote: median {figures['median_seconds']:.2f} s, "
        f"greatest {figures['greatest_seconds']:.2f} s (target: under {TARGET_SECONDS:.0f} s). "
        f"Trials lost: {max(lost, 0)}."
    )


if __name__ == "__main__":
    main()
