"""A worker process on a machine of a cluster, as an actor has it: passes on what driver and worker say.

Where that is another machine than the driver's, the images come with a training and are stored once, and the
paths of a training become paths of that machine. Not here: the cluster (`ray_pool.py`). No torch.
"""

import hashlib
import logging
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mc1opt.dataset import DataSet
from mc1opt.files import remove_checkpoint
from mc1opt.program import boot_id
from mc1opt.spec import FailureKind, Training
from mc1opt.workers.child import Child, WorkerDied, block_signals
from mc1opt.workers.protocol import Failed, Finished, Message, Train, Warned, decode_command, encode

SLICE_SECONDS = 0.1
"""Seconds after which a relay that waits for its worker looks whether it shall stop."""

TRAINING_FILES = "train_*"
"""Names of the files that a training reads in the data set's folder; those of the test stay there."""

Content = NDArray[np.uint8]
"""The bytes of a file."""


class Answer(NamedTuple):
    """What a relay says of its worker."""

    line: bytes | None = None
    """A message, encoded; None if there was none in time."""
    died: tuple[FailureKind, str] | None = None
    """Kind and message of a `WorkerDied`."""
    weights: bytes | None = None
    """The weights of the training that has ended, for a driver on another machine."""


class Host(NamedTuple):
    """Which machine, and whose files: two processes with the same one see the same files."""

    name: str
    boot: str | None


def this_host() -> Host:
    """The host of this process."""
    return Host(socket.gethostname(), boot_id())


class Relay:
    """Has a worker process. `exchange` is called by one thread at a time, the rest by any.

    Args:
        trainer: see `ProcessPool`.
        threads: intra-op threads of the worker.
        shared: whether the paths of trainings are valid on all machines.
        driver: where the driver is.
    """

    def __init__(self, trainer: str, threads: int, shared: bool, driver: Host) -> None:
        self._is_near = this_host() == driver
        self._paths_hold = shared or self._is_near
        # The thread outlives the worker: see `Child`.
        self._starter = ThreadPoolExecutor(1, initializer=block_signals)
        self._child = self._starter.submit(Child, trainer, threads).result()
        self._lock = threading.Lock()
        self._interrupted = False
        self._training: Training | None = None
        self._warnings = _Warnings()
        logging.getLogger("mc1opt").addHandler(self._warnings)

    def is_near(self) -> bool:
        """Whether it is on the driver's machine."""
        return self._is_near

    def exchange(
        self, line: bytes | None, seconds: float, names: Sequence[str] = (), *contents: Content
    ) -> Answer:
        """Passes a command on, if there is one, and waits for a message, up to `seconds`.

        With a training come names and contents of its images' files, for a machine that may not have them.
        """
        deadline = time.monotonic() + seconds
        with self._lock:
            try:
                if line is not None:
                    command = decode_command(line)
                    if isinstance(command, Train):
                        files = dict(zip(names, contents, strict=True))
                        self._training = self._here(command.training, files)
                        command = Train(training=self._training)
                    self._child.send(command)
                while True:
                    left = deadline - time.monotonic()
                    message = self._child.receive(min(SLICE_SECONDS, max(0.0, left)))
                    if message is not None:
                        return Answer(encode(message), weights=self._weights(message))
                    if self._warnings.lines:
                        return Answer(self._warnings.lines.pop(0))
                    if left <= 0.0 or self._interrupted:
                        return Answer()
            except WorkerDied as error:
                return Answer(died=(error.kind, error.message))

    def interrupt(self, seconds: float) -> None:
        """See `Child.interrupt`."""
        self._interrupted = True
        with self._lock:
            self._child.interrupt(seconds)

    def close(self) -> None:
        """See `Child.close`."""
        self._interrupted = True
        with self._lock:
            self._child.close()
        logging.getLogger("mc1opt").removeHandler(self._warnings)
        self._starter.shutdown()

    def _here(self, training: Training, files: Mapping[str, Content]) -> Training:
        """The training with paths of this machine."""
        changes = dict[str, Any]()
        if files:
            folder = str(stored_images(training.data, files))
            changes["data"] = training.data.model_copy(update={"folder": folder})
        if not self._paths_hold:
            for what in ("weights", "checkpoint"):
                path = getattr(training, what)
                if path is not None:
                    changes[what] = str(_folder() / f"{_short_hash(path)}.{what}")
        return training.model_copy(update=changes)

    def _weights(self, message: Message) -> bytes | None:
        """The weights of a training that has ended, if the driver lacks them; its files are removed here."""
        if self._paths_hold or self._training is None or not isinstance(message, Finished | Failed):
            return None
        training, self._training = self._training, None
        if training.checkpoint is not None:
            remove_checkpoint(Path(training.checkpoint))
        weights = Path(training.weights) if training.weights else None
        if weights is None or not weights.exists():
            return None
        content = weights.read_bytes()
        weights.unlink()
        return content


def stored_images(data: DataSet, files: Mapping[str, Content]) -> Path:
    """A folder of this machine with these files; the first worker that asks writes them."""
    folder = _folder() / f"images-{_short_hash(f'{data.sha256} {data.folder}')}"
    if not folder.exists():
        mine = Path(tempfile.mkdtemp(dir=_folder()))
        for name, content in files.items():
            content.tofile(mine / name)
        try:
            mine.rename(folder)
        except OSError:  # another worker was faster
            shutil.rmtree(mine)
    return folder


def _folder() -> Path:
    """This user's folder for what trainings need on a machine that is not the driver's."""
    folder = Path(tempfile.gettempdir()) / f"mc1opt-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _short_hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


class _Warnings(logging.Handler):
    """Keeps warnings, as messages, until the driver asks."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[bytes] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(encode(Warned(message=record.getMessage())))
