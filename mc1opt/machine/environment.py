"""What a trial was trained with: the last bits of a curve depend on versions and the CPU's capability."""

import contextlib
import functools
import os
import platform
import subprocess
from pathlib import Path

from mc1opt import __version__
from mc1opt.config import Config
from mc1opt.machine.devices import bfloat16_instructions, cpu_flags
from mc1opt.program import installed
from mc1opt.spec import Device, Precision

_installed = functools.cache(installed)  # of a package's metadata all is parsed, for each trial


def versions(
    threads: int, precision: Precision, device: Device = "cpu", config: Config | None = None
) -> dict[str, str | int]:
    """mc1opt, Python, torch, Optuna; the CPU's capability, the threads a worker, the precision; the GPU.

    Of a CPU also what computes bfloat16, where a training of `config` does so. torch is not imported for it:
    that takes seconds, and the main process does without.
    """
    gpu = gpu_model() if device == "cuda" else None
    return {
        "mc1opt": __version__,
        "python": platform.python_version(),
        "torch": _installed("torch") or "unknown",
        "optuna": _installed("optuna") or "unknown",
        "cpu": cpu_capability() + bfloat16_instructions(device, precision, config),
        "threads": threads,
        "precision": precision,
        **({"gpu": gpu} if gpu is not None else {}),
    }


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


def gpu_model(folder: Path = Path("/proc/driver/nvidia/gpus")) -> str | None:
    """The model of NVIDIA's GPU, or their models; None where the driver does not tell.

    Args:
        folder: where the driver describes each of them.
    """
    models = set()
    for path in folder.glob("*/information"):
        with contextlib.suppress(OSError):
            models |= {
                value.strip()
                for name, _, value in (line.partition(":") for line in path.read_text().splitlines())
                if name == "Model"
            }
    return ", ".join(sorted(models)) or None


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
