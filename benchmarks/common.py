"""What the benchmarks share: the machine in words, tables, and the files of results.

Not here: anything that is measured.
"""

import argparse
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mc1opt.files import append_line
from mc1opt.machine.devices import resolve_precision
from mc1opt.machine.environment import commit, versions
from mc1opt.machine.resources import available_cpus
from mc1opt.paths import user_path
from mc1opt.spec import Device

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RESULTS = Path(__file__).parent / "results"
QUIET_LOAD = 0.5
"""The load average of the last minute above which a machine is not quiet."""


def add_results_option(parser: argparse.ArgumentParser, name: str) -> None:
    """Adds `--results`, by default `benchmarks/results/NAME.jsonl`."""
    path = RESULTS / f"{name}.jsonl"
    parser.add_argument(
        "--results", type=user_path, default=path, help="the file that a JSON line is added to"
    )


def machine_facts(device: Device = "cpu") -> dict[str, Any]:
    """What a figure depends on beside the code: CPU, cores, load, versions, commit; the GPU if it trains."""
    facts = {
        "cpu_model": _cpu_model(),
        "cores": available_cpus(),
        "load": round(os.getloadavg()[0], 2),
        "versions": versions(threads=1, precision=resolve_precision(device), device=device),
        "commit": commit(),
    }
    if device == "cuda":
        facts["gpu_model"] = torch.cuda.get_device_name()
    return facts


def machine_line(machine: dict[str, Any]) -> str:
    """The machine in a line, with a warning where it was not quiet."""
    noise = " NOT QUIET: other work takes part of these figures." if machine["load"] > QUIET_LOAD else ""
    gpu = f"{machine['gpu_model']}, " if "gpu_model" in machine else ""
    return (
        f"{gpu}{machine['cpu_model']}, {machine['cores']} cores, torch {machine['versions']['torch']}, "
        f"load before the measurement {machine['load']}.{noise}"
    )


def append_result(path: Path, machine: dict[str, Any], figures: dict[str, Any]) -> None:
    """Adds a JSON line: date, machine, figures; see `append_line`."""
    append_line(
        path, {"date": datetime.now(UTC).isoformat(timespec="seconds"), "machine": machine, **figures}
    )


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; all columns but the first are right-aligned."""
    rules = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (header, rules, *rows))


def save_svg(figure: "Figure", path: Path) -> None:
    """Writes a figure as SVG; the same figure gives the same file."""
    import matplotlib  # noqa: PLC0415  (most benchmarks draw nothing)

    with matplotlib.rc_context({"svg.hashsalt": "mc1opt"}):
        figure.savefig(path, metadata={"Date": None})


def _cpu_model() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if line.startswith("model name")]
    return names[0] if names else platform.machine()
