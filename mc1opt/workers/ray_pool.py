"""Workers on a Ray cluster: actors that train, a training at a time, for a search in this process.

Ray places the actors, carries what they say, and knows which of them are gone; each has a worker process as
a local pool has (`relay.py`, `child.py`), so that one trainer, one protocol and one pool serve both. The only
file that knows Ray. No torch.
"""

import contextlib
import functools
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mc1opt.errors import UsageError, WorkerError
from mc1opt.files import write_whole
from mc1opt.machine.resources import available_cpus
from mc1opt.spec import EpochResult, Training, TrainingFailed
from mc1opt.text import plural
from mc1opt.workers.child import WorkerDied, leaves_usable
from mc1opt.workers.pool import SAVE_SECONDS, Worker, WorkerPool
from mc1opt.workers.protocol import Command, Message, Train, Warned, decode_message, encode
from mc1opt.workers.relay import TRAINING_FILES, Answer, Relay, this_host

logger = logging.getLogger(__name__)

LOCAL = "local"
"""In place of an address: a cluster of this machine alone, which ends with this process."""

LOSSES = 5
"""Workers that a training may lose, without an epoch in between, before it fails."""

LOOK_SECONDS = 1.0
"""Seconds between two looks at what the cluster has."""

PLACE_SECONDS = 10.0
"""Seconds that a new pool waits for all of its workers to be placed; those that come later are used, too."""

ANSWER_SECONDS = 60.0
"""Seconds after which a worker that has nothing to say says so: a call then never waits for good."""

Files = tuple[list[str], list[Any]]
"""Names of files, and references of their contents in Ray's object store."""

_LOW_MEMORY = "running low on memory"
"""In Ray's words for an actor that its memory monitor has killed."""


@dataclass(frozen=True)
class Cluster:
    """Where Ray is, and what each worker takes of it."""

    address: str
    """Of a cluster, "auto" for the one of this machine, or `LOCAL`."""
    cpus: int = 1
    """Ray's CPUs a worker, and the intra-op threads of its trainings."""
    gpus: float = 0.0
    """Ray's GPUs a worker, also a part of one."""

    def connect(self) -> None:
        """Connects this process to the cluster, once.

        Raises:
            UsageError: Ray is not installed, or there is no cluster at this address.
        """
        ray = _ray()
        if ray.is_initialized():
            return
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        own = {"num_cpus": available_cpus(), "include_dashboard": False} if self.address == LOCAL else {}
        before = signal.getsignal(signal.SIGTERM)  # which Ray takes for itself
        try:
            ray.init(address=self.address, log_to_driver=False, logging_level=logging.ERROR, **own)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise UsageError(
                f"--ray {self.address}: no Ray cluster answers there ({type(error).__name__}). Start one "
                "with `ray start --head`, give its address, or use --ray local."
            ) from error
        finally:
            if threading.current_thread() is threading.main_thread():
                signal.signal(signal.SIGTERM, before)

    def capacity(self) -> int:
        """How many workers the machines that are there now have place for, whoever else uses them."""
        return sum(self._workers(node["Resources"]) for node in _ray().nodes() if node["Alive"])

    def _workers(self, resources: dict[str, float]) -> int:
        workers = resources.get("CPU", 0.0) // self.cpus
        return int(min(workers, resources.get("GPU", 0.0) // self.gpus) if self.gpus else workers)


def _ray() -> Any:
    try:
        import ray
    except ImportError:
        raise UsageError("--ray needs Ray: pip install 'mc1opt[ray]'.") from None
    return ray


class WorkerLost(WorkerDied):
    """A worker is gone with its machine, or by Ray's decision: not the training's fault."""


class RayWorker:
    """An actor, as the pool sees it: a worker with the surface of `Child`.

    Args:
        relay: the actor, a `Relay`.
        images: from a folder of images to the names of a training's files and references of their contents.
    """

    def __init__(self, relay: Any, images: Callable[[str], Files]) -> None:
        self.ready = False
        self._relay = relay
        self._images = images
        self._busy = False
        self._gone = False
        self._placed = False
        self._to_send: Command | None = None
        self._weights: str | None = None
        self._pending: Any = None
        self._near = relay.is_near.remote()

    @property
    def usable(self) -> bool:
        """See `Child.usable`."""
        return self.ready and not self._busy and not self._gone

    def is_placed(self) -> bool:
        """Whether a machine has taken it in, and it has not been lost since."""
        self._placed = self._placed or bool(_ray().wait([self._near], timeout=0)[0])
        return self._placed and not self._gone

    def send(self, command: Command) -> None:
        """Sends a command with the next `receive`: that makes one call of the actor an epoch."""
        if isinstance(command, Train):
            self._busy = True
            self._weights = command.training.weights
        self._to_send = command

    def receive(self, seconds: float) -> Message | None:
        """See `Child.receive`.

        Raises:
            WorkerLost: the actor is gone.
            WorkerDied: its worker process is.
        """
        deadline = time.monotonic() + seconds
        while (answer := self._answer(deadline)) is not None and answer.line is not None:
            message = decode_message(answer.line)
            if isinstance(message, Warned):
                logger.warning("%s", message.message)
                continue
            self.ready = True
            self._busy = self._busy and not leaves_usable(message)
            if answer.weights is not None and self._weights is not None:
                write_whole(Path(self._weights), answer.weights)
            return message
        return None

    def _answer(self, deadline: float) -> Answer | None:
        """What the actor says; None if it says nothing in time."""
        is_silent = self.ready and not self._busy
        with self._noticing_its_end():
            asked = self._pending = self._pending or self._ask(0.0 if is_silent else ANSWER_SECONDS)
            left = ANSWER_SECONDS if is_silent else max(0.0, deadline - time.monotonic())
            if not _ray().wait([asked], timeout=left)[0]:
                return None
            self._pending = None
            answer: Answer = _ray().get(asked)
        if answer.died is not None:
            self.close()
            raise WorkerDied(*answer.died)
        return answer

    def _ask(self, seconds: float) -> Any:
        command, self._to_send = self._to_send, None
        files: Files = ([], [])
        if isinstance(command, Train) and not _ray().get(self._near):
            files = self._images(command.training.data.folder)
        return self._relay.exchange.remote(command and encode(command), seconds, files[0], *files[1])

    @contextlib.contextmanager
    def _noticing_its_end(self) -> Iterator[None]:
        errors = _ray().exceptions
        try:
            yield
        except errors.RayActorError as error:
            self._gone = True
            if _LOW_MEMORY in str(error):
                raise WorkerDied("out_of_memory", f"Ray ended the worker: {error}") from error
            if error.actor_init_failed:
                raise WorkerDied("crashed", f"a worker cannot be started: {error}") from error
            raise WorkerLost("killed", f"a worker of the cluster is gone: {error}") from error
        except errors.RayError as error:
            self.close()
            raise WorkerDied("crashed", f"the worker's Ray actor failed: {error}") from error

    def interrupt(self, seconds: float) -> None:
        """See `Child.interrupt`."""
        with contextlib.suppress(_ray().exceptions.RayError):
            _ray().get(self._relay.interrupt.remote(seconds), timeout=seconds + SAVE_SECONDS)
        self.close()

    def close(self) -> None:
        """Ends the actor, and with it its worker process. Safe to repeat, and from any thread."""
        self._gone = True
        with contextlib.suppress(Exception):  # the cluster may be gone
            _ray().kill(self._relay)

    reap = hang_up = close

    def wait_for_end(self, _seconds: float) -> None:
        """See `close`."""
        self.close()


class RayPool(WorkerPool):
    """A pool of workers on a Ray cluster, and a context manager. Its `size` is that of those that are there.

    A training whose worker is lost goes on with another one: from its checkpoint if that is there, else from
    its start; `on_epoch` is not called again for epochs that it has had.

    Args:
        cluster: where; this process is connected to it.
        workers: how many; None for as many as there is place for, as machines come and go.
        trainer: see `ProcessPool`.
        shared: whether the paths of checkpoints and weights are valid on all machines.
        max_training_seconds: see `WorkerPool`.
    """

    def __init__(
        self,
        cluster: Cluster,
        workers: int | None,
        *,
        trainer: str = "mc1opt.training.loop:train",
        shared: bool = False,
        max_training_seconds: float | None = None,
    ) -> None:
        self._cluster = cluster
        self._follows = workers is None
        options = {"num_cpus": cluster.cpus, "num_gpus": cluster.gpus, "max_concurrency": 2}
        relay = _ray().remote(**options)(Relay)
        images = functools.cache(_put_images)
        super().__init__(
            workers or max(1, cluster.capacity()),
            lambda: RayWorker(relay.remote(trainer, cluster.cpus, shared, this_host()), images),
            max_training_seconds=max_training_seconds,
        )
        self.size = 1
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="ray-watcher", daemon=True)
        self._watcher.start()
        with self._changed:  # so that plans know how many there are
            self._changed.wait_for(lambda: self.size >= self._wanted, PLACE_SECONDS)
            if not cluster.capacity():
                wanted = plural(cluster.cpus, "CPU") + (f" and {cluster.gpus:g} GPUs" if cluster.gpus else "")
                logger.warning("no machine of the Ray cluster has %s for a worker yet: waiting", wanted)

    def train(self, training: Training, on_epoch: Callable[[EpochResult], bool]) -> bool:
        """See `Pool.train`."""
        seen, losses = -1, 0

        def once(result: EpochResult) -> bool:
            nonlocal seen, losses
            if result.epoch <= seen:
                return True
            seen, losses = result.epoch, 0
            return on_epoch(result)

        while True:
            try:
                return super().train(training, once)
            except TrainingFailed as failure:
                losses += 1
                if not isinstance(failure.__cause__, WorkerLost) or losses == LOSSES:
                    raise
            except WorkerError as error:  # idle ones are gone
                if not isinstance(error.__cause__, WorkerLost):
                    raise

    def close(self) -> None:
        """See `Pool.close`."""
        self._ended.set()
        super().close()
        self._watcher.join()

    def _next_slot(self) -> "Future[Worker] | None":
        return next((slot for slot in reversed(self._free) if _is_placed(slot)), None)

    def _watch(self) -> None:
        """Follows the cluster until the pool is closed."""
        while not self._ended.is_set():
            with contextlib.suppress(_ray().exceptions.RayError):  # then its workers tell
                if self._follows:
                    self._grow(max(1, self._cluster.capacity()))
            with self._changed:
                self.size = max(1, sum(map(_is_placed, [*self._free, *self._taken])))
                self._changed.notify_all()
            self._ended.wait(LOOK_SECONDS if self.size >= self._wanted else LOOK_SECONDS / 10)


def _is_placed(slot: "Future[Any]") -> bool:
    return slot.done() and slot.exception() is None and slot.result().is_placed()


def _put_images(folder: str) -> Files:
    """The files of training images in Ray's object store, where each machine gets them once."""
    paths = sorted(Path(folder).glob(TRAINING_FILES))
    return [path.name for path in paths], [_ray().put(np.fromfile(path, np.uint8)) for path in paths]
