"""Which device trains."""

import os
import re
import sys
from pathlib import Path
from typing import cast

from mc1opt.config import Config, Muon
from mc1opt.errors import UsageError
from mc1opt.spec import DEVICES, Device, Precision


def resolve_device(name: str) -> Device:
    """The device of `--device`: cpu, cuda, mps, or the best there is for "auto".

    Raises:
        UsageError: there is no such device, in general or here.
    """
    if name not in ("auto", *DEVICES):
        raise UsageError(f"unknown device {name!r}. Allowed: auto, {', '.join(DEVICES)}.")
    if name == "cpu" or (name == "auto" and not _may_have_accelerator()):
        return "cpu"  # without importing torch, which takes seconds
    import torch

    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        return "cuda" if there["cuda"] else "mps" if there["mps"] else "cpu"
    if not there[name]:
        built = f"CUDA {torch.version.cuda}" if torch.version.cuda else "no CUDA"
        raise UsageError(
            f"--device {name}: torch {torch.__version__} (built with {built}) finds no such device here. "
            "Use --device cpu or auto."
        )
    return cast(Device, name)


def visible_gpus() -> tuple[str, ...]:
    """What CUDA_VISIBLE_DEVICES calls the GPUs that torch finds here: indices, or names where it has them."""
    import torch

    found = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return tuple(named[:found] if len(named) >= found else map(str, range(found)))


def resolve_precision(device: Device) -> Precision:
    """bfloat16 where the device multiplies it faster than float32: CUDA, and some CPUs.

    These are CPUs with AMX, and AMD's with AVX-512: there a training takes about 0.6 of the time. On Intel's
    with AVX-512 alone, whose instruction does no more products a cycle than float32's, it takes 1.4 times as
    long (`benchmarks/LOG.md`).
    """
    if device == "cuda":
        return "bfloat16"
    if device == "cpu":
        flags = cpu_flags()
        if "amx_bf16" in flags or ("avx512_bf16" in flags and _cpu_field("vendor_id") == "AuthenticAMD"):
            return "bfloat16"
    return "float32"


def cpu_flags() -> frozenset[str]:
    """The instruction sets that Linux says the CPU has; empty elsewhere."""
    return frozenset(_cpu_field("flags").split())


def bfloat16_instructions(device: Device, precision: Precision, config: Config | None = None) -> str:
    """What bfloat16 is computed with on this CPU, with a blank before it; empty for other trainings.

    Kernels for bfloat16 differ between CPUs that torch calls by one name, and so do the last bits.

    Args:
        device: where the training computes.
        precision: of the training.
        config: what is trained; Muon computes its steps in bfloat16 in every precision.
    """
    muon = config is not None and isinstance(config.optimizer, Muon)
    if device != "cpu" or not (muon or precision == "bfloat16"):
        return ""
    found = sorted(cpu_flags() & {"amx_bf16", "avx512_bf16", "avx512_fp16", "avx_ne_convert"})
    return "".join(f" {flag}" for flag in found)


def _cpu_field(name: str) -> str:
    """What Linux says of the first CPU under that name; empty where it says nothing."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return ""
    found = re.search(rf"^{name}\s*: (.*)$", text, flags=re.MULTILINE)
    return found[1] if found else ""


def _may_have_accelerator() -> bool:
    return sys.platform == "darwin" or any(
        Path(device).exists() for device in ("/dev/nvidiactl", "/dev/nvidia0", "/dev/kfd", "/dev/dxg")
    )
