"""Where trainings run, and on what: from the options of the command line to a pool of workers.

Processes of this machine, or actors of a Ray cluster; a device, and what each worker takes of it.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mc1opt.errors import UsageError
from mc1opt.machine.devices import resolve_device, visible_gpus
from mc1opt.machine.resources import WORKER_MEMORY, default_workers, workers_in_memory
from mc1opt.spec import Device
from mc1opt.workers.pool import ProcessPool, WorkerPool

if TYPE_CHECKING:
    from mc1opt.workers.ray_pool import Cluster

MAX_WORKERS = 256
MAX_CLUSTER_WORKERS = 4096


@dataclass(frozen=True)
class Engine:
    """The options of commands that train. Wrong ones are a `UsageError` of the method that reads them."""

    workers: str = "auto"
    """Number of trainings at once, or auto: as many as there is place for."""
    device: str = "auto"
    """auto, cpu, cuda, mps, or one of several GPUs, such as cuda:1."""
    cpus: int = 1
    """CPUs a worker: intra-op threads of its trainings."""
    gpus: float | None = None
    """GPUs a worker, 1 or a part such as 0.25; None for what suits the device."""
    ray: str | None = None
    """Address of a Ray cluster, auto, or local; None for processes of this machine."""
    shared_files: bool = False
    """Whether all machines see the folder of weights and checkpoints."""

    def find_device(self) -> Device:
        """The device of the trainings; connects to the cluster, if there is one."""
        if self.cpus < 1:
            raise UsageError(f"--worker-cpus {self.cpus}: give at least 1.")
        if self.gpus is not None and not 0 < self.gpus <= 1:
            raise UsageError(
                f"--worker-gpus {self.gpus:g}: a training uses one GPU; give 1, or a part as 0.25."
            )
        device = self._device()
        if self.gpus is not None and device != "cuda":
            raise UsageError(f"--worker-gpus {self.gpus:g} needs --device cuda; trainings run on {device}.")
        self.count(device)
        return device

    def _device(self) -> Device:
        if self.ray is None:
            name, _, index = self.device.partition(":")
            device = resolve_device(name if name == "cuda" and index else self.device)
            if index and (not index.isdecimal() or int(index) >= len(visible_gpus())):
                raise UsageError(f"--device {self.device}: torch finds {len(visible_gpus())} GPUs here.")
            return device
        self._cluster("cpu").connect()
        # What the machines of the cluster have, they must say themselves.
        if self.device in ("auto", "cpu"):
            return "cuda" if self.device == "auto" and self.gpus else "cpu"
        if self.device == "cuda":
            return "cuda"
        raise UsageError(f"--device {self.device}: on a Ray cluster give auto, cpu or cuda.")

    def count(self, device: Device, memory_each: int = WORKER_MEMORY) -> int:
        """Number of trainings at once.

        Args:
            device: of the trainings.
            memory_each: bytes of main memory per training, if known; limits auto on this machine.
        """
        if self.workers == "auto":
            if self.ray is not None:
                return max(1, self._cluster(device).capacity())
            gpus = len(self._gpus()) if device == "cuda" else 0  # which torch is asked for
            if self.gpus is not None:
                return min(int(1 / self.gpus) * gpus, workers_in_memory(memory_each))
            return default_workers(device, memory_each, threads=self.cpus, gpus=max(gpus, 1))
        most = MAX_WORKERS if self.ray is None else MAX_CLUSTER_WORKERS
        if not self.workers.isdecimal() or not 1 <= int(self.workers) <= most:
            raise UsageError(f"--workers {self.workers!r}: give a number from 1 to {most}, or auto.")
        if device == "mps" and int(self.workers) > 1:
            raise UsageError(f"--workers {self.workers}: on mps one worker trains; give 1 or auto.")
        return int(self.workers)

    def pool(
        self,
        workers: int,
        device: Device,
        *,
        trainer: str = "mc1opt.training.loop:train",
        max_training_seconds: float | None = None,
    ) -> WorkerPool:
        """A pool of workers; of a cluster with `--workers auto`, one that grows and shrinks with it.

        Args:
            workers: how many.
            device: where they train.
            trainer: see `ProcessPool`.
            max_training_seconds: see `WorkerPool`.
        """
        if self.ray is None:
            return ProcessPool(
                workers,
                trainer=trainer,
                threads=self.cpus,
                gpus=self._gpus() if device == "cuda" else (),
                max_training_seconds=max_training_seconds,
            )
        from mc1opt.workers.ray_pool import RayPool

        return RayPool(
            self._cluster(device),
            None if self.workers == "auto" else workers,
            trainer=trainer,
            shared=self.shared_files,
            max_training_seconds=max_training_seconds,
        )

    def _cluster(self, device: Device) -> "Cluster":
        from mc1opt.workers.ray_pool import Cluster

        gpus = (self.gpus or 1.0) if device == "cuda" else 0.0
        return Cluster(self.ray or "", self.cpus, gpus)

    def _gpus(self) -> tuple[str, ...]:
        """What CUDA_VISIBLE_DEVICES calls the GPUs to be used, of this machine."""
        index = self.device.partition(":")[2]
        return (visible_gpus()[int(index)],) if index else visible_gpus()
