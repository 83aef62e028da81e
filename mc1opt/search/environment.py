"""What a trial was trained with: the last bits of a curve depend on versions and the CPU's capability."""

import functools
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from mc1opt import __version__
from mc1opt.spec import Precision
from mc1opt.training.devices import cpu_flags


def versions(threads: int, precision: Precision) -> dict[str, str | int]:
    """mc1opt, Python, torch, Optuna; the CPU's capability, the threads a worker, the precision.

    torch is not imported for it: that takes seconds, and the main process does without.
    """
    return {
        "mc1opt": __version__,
        "python": platform.python_version(),
        "torch": _version("torch"),
        "optuna": _version("optuna"),
        "cpu": cpu_capability(),
        "threads": threads,
        "precision": precision,
    }


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "unknown"


@functools.cache
def cpu_capability() -> str:
    """The vector instructions that torch's kernels choose between: AVX512, AVX2, or the machine's name."""
    forced = os.environ.get("ATEN_CPU_CAPABILITY")
    if forced:
        return forced.upper()
    flags = cpu_flags()
    if {"avx512f", "avx512dq", "avx512vl", "avx512bw"} <= flags:
        return "AVX512"
    return "AVX2" if {"avx2", "fma"} <= flags else platform.machine()


@functools.cache
def commit() -> str | None:
    """The commit of the checkout that mc1opt runs from; None for an installed package."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        result = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, timeout=5, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return result.stdout.strip()
