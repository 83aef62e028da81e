"""What this process may use of its machine, and how many workers that makes. No torch.

On Linux the limits of control groups (containers, batch systems) count, in versions 1 and 2: a container with
two CPUs of a machine with 64 gets two workers.
"""

import os
import re
from collections.abc import Iterator
from pathlib import Path

import psutil

from mc1opt.spec import Device

WORKER_MEMORY = 1 << 30
"""Bytes that a worker is assumed to need where its config is not known yet: torch itself (0.3 to 0.5 GiB),
its copy of the images (70 MB of a trial of the study `cnn`), and the activations of one step of a middling
network. Where it is known: `mc1opt.machine.memory`."""

GPU_WORKERS = 4
"""Workers on one GPU: small networks leave it idle between their steps, and several fill the gaps."""

_ROOT = Path("/")
"""Where `proc` and `sys` are; tests have others."""


def default_workers(
    device: Device, memory_each: int = WORKER_MEMORY, *, threads: int = 1, gpus: int = 1
) -> int:
    """How many workers `--workers auto` means: at least 1.

    On a CPU as many as this process may use CPUs for, on each GPU `GPU_WORKERS` at most, both limited by the
    memory that is free now; 1 on Apple's GPU.

    Args:
        device: where the workers train.
        memory_each: bytes that each worker needs.
        threads: CPUs of each worker.
        gpus: number of GPUs.
    """
    if device == "mps":
        return 1
    workers = max(1, available_cpus() // threads)
    if device == "cuda":
        workers = min(workers, GPU_WORKERS * gpus)
    return min(workers, workers_in_memory(memory_each))


def workers_in_memory(memory_each: int = WORKER_MEMORY) -> int:
    """How many workers the memory that is free now is enough for: at least 1. See `default_workers`."""
    return max(1, available_memory() // memory_each)


def available_cpus() -> int:
    """The CPUs that this process may use, by its affinity and its control groups' quotas; at least 1.

    A quota is rounded down: with 2.5 CPUs three workers would take turns.
    """
    cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [_quota_v2(group) for group in _groups("")]
    quotas += [_quota_v1(group) for group in _groups("cpu")]
    return max(1, min([cpus, *(int(quota) for quota in quotas if quota is not None)]))


def available_memory() -> int:
    """Bytes that can be taken without swapping, by the system and the limits of its control groups."""
    free = [int(psutil.virtual_memory().available)]
    for group in _groups(""):
        free += _free(group, "memory.max", "memory.current", "inactive_file")
    for group in _groups("memory"):
        free += _free(group, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    return max(0, min(free))


def memory_kills() -> int | None:
    """How many processes this machine has killed since its start because memory ran out; None if unknown.

    On Linux those that exceeded the limit of their control group are counted, too.
    """
    return _field(_ROOT / "proc/vmstat", "oom_kill")


def _groups(controller: str) -> Iterator[Path]:
    """This process's control group and those around it, for one controller of version 1, or "" for version 2.

    A limit of any of them holds. Inside a container the innermost ones are often not to be seen; then the
    outermost folder is the container's.
    """
    for line in _read(_ROOT / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if controller not in controllers.split(","):
            continue
        top = _ROOT / "sys/fs/cgroup" / controller
        group = top / path.strip("/")
        yield group
        for parent in group.parents:
            if not parent.is_relative_to(top):
                break
            yield parent


def _quota_v2(group: Path) -> float | None:
    fields = _read(group / "cpu.max").split()
    return int(fields[0]) / int(fields[1]) if len(fields) == 2 and fields[0] != "max" else None


def _quota_v1(group: Path) -> float | None:
    quota, period = (_number(group / name) for name in ("cpu.cfs_quota_us", "cpu.cfs_period_us"))
    return quota / period if quota is not None and quota > 0 and period else None


def _free(group: Path, limit_file: str, usage_file: str, cache_name: str) -> list[int]:
    """What is left below a group's limit, in bytes; empty if there is none. Cached files give way."""
    limit, usage = _number(group / limit_file), _number(group / usage_file)
    if limit is None or usage is None:
        return []
    cache = _field(group / "memory.stat", cache_name) or 0
    return [limit - max(0, usage - cache)]


def _field(path: Path, name: str) -> int | None:
    """The number of that name in a file with a name and a number a line; None if it has none."""
    found = re.search(rf"^{name} (\d+)$", _read(path), re.MULTILINE)
    return int(found[1]) if found else None


def _number(path: Path) -> int | None:
    text = _read(path).strip()
    return int(text) if text.lstrip("-").isdigit() else None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
