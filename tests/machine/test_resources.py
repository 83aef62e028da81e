import os
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from mc1opt.machine import resources
from mc1opt.machine.resources import (
    GPU_WORKERS,
    WORKER_MEMORY,
    available_cpus,
    available_memory,
    default_workers,
    memory_kills,
    workers_in_memory,
)

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine of 16 CPUs, with 32 GiB of free memory, without control groups."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(16)), raising=False)
    monkeypatch.setattr(resources, "_ROOT", tmp_path)
    set_free_memory(monkeypatch, 32 * GIB)
    return tmp_path


def set_free_memory(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=size))


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{content}\n")


def group_v2(machine: Path, group: str = "jobs/one") -> Path:
    """A control group of version 2 that this process is in."""
    write(machine / "proc/self/cgroup", f"0::/{group}")
    return machine / "sys/fs/cgroup" / group


def group_v1(machine: Path, controller: str) -> Path:
    """A control group of version 1, of which only the outermost folder is seen, as in a container."""
    write(
        machine / "proc/self/cgroup",
        "9:memory:/docker/abc\n3:cpu,cpuacct:/docker/abc\n1:name=systemd:/\n0::/",
    )
    return machine / "sys/fs/cgroup" / controller


def test_without_limits_it_is_the_affinity(machine):
    assert available_cpus() == 16


def test_without_affinity_it_is_the_number_of_cpus(machine, monkeypatch):
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: 5)
    assert available_cpus() == 5


@pytest.mark.parametrize(
    ("content", "cpus"),
    [
        ("max 100000", 16),
        ("200000 100000", 2),
        ("250000 100000", 2),
        ("50000 100000", 1),
        ("9900000 100000", 16),
    ],
)
def test_a_quota_of_version_2_limits_the_cpus(machine, content, cpus):
    write(group_v2(machine) / "cpu.max", content)
    assert available_cpus() == cpus


def test_the_quota_of_a_group_around_holds_too(machine):
    group = group_v2(machine)
    write(group / "cpu.max", "400000 100000")
    write(group.parent / "cpu.max", "300000 100000")
    assert available_cpus() == 3


@pytest.mark.parametrize(("quota", "cpus"), [(-1, 16), (300_000, 3)])
def test_a_quota_of_version_1_limits_the_cpus(machine, quota, cpus):
    group = group_v1(machine, "cpu")
    write(group / "cpu.cfs_quota_us", quota)
    write(group / "cpu.cfs_period_us", 100_000)
    assert available_cpus() == cpus


def test_without_limits_it_is_the_memory_that_is_available(machine):
    assert available_memory() == 32 * GIB


def test_a_limit_of_version_2_counts_what_is_used_but_not_the_cache(machine):
    group = group_v2(machine)
    write(group / "memory.max", 8 * GIB)
    write(group / "memory.current", 5 * GIB)
    write(group / "memory.stat", f"anon 1\ninactive_file {2 * GIB}")
    assert available_memory() == 5 * GIB


def test_a_limit_of_version_2_that_is_none_does_not_count(machine):
    group = group_v2(machine)
    write(group / "memory.max", "max")
    write(group / "memory.current", 5 * GIB)
    assert available_memory() == 32 * GIB


def test_a_limit_of_version_1_counts_what_is_used_but_not_the_cache(machine):
    group = group_v1(machine, "memory")
    write(group / "memory.limit_in_bytes", 8 * GIB)
    write(group / "memory.usage_in_bytes", 5 * GIB)
    write(group / "memory.stat", f"inactive_file 7\ntotal_inactive_file {GIB}")
    assert available_memory() == 4 * GIB


@pytest.mark.parametrize(
    ("device", "free", "workers"),
    [
        ("cpu", 32 * GIB, 16),
        ("cpu", 3.5 * WORKER_MEMORY, 3),
        ("cpu", 0, 1),
        ("cuda", 32 * GIB, GPU_WORKERS),
        ("mps", 32 * GIB, 1),
    ],
)
def test_a_cpu_gets_a_worker_each_and_a_gpu_few_if_memory_is_enough(
    machine, monkeypatch, device, free, workers
):
    set_free_memory(monkeypatch, int(free))
    assert default_workers(device) == workers


def test_memory_is_enough_for_so_many_workers_whatever_the_cpus(machine):
    assert workers_in_memory() == 32
    assert workers_in_memory(64 * GIB) == 1


def test_kills_for_want_of_memory_are_counted_where_the_system_does(machine):
    assert memory_kills() is None
    write(machine / "proc/vmstat", "nr_free_pages 12\noom_kill 3\nswap_ra 4")
    assert memory_kills() == 3


def test_this_machine_has_cpus_and_memory():
    assert 1 <= available_cpus() <= (os.cpu_count() or 1)
    assert available_memory() > 0
