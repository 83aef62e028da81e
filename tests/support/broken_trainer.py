"""A trainer whose packages don't fit together."""

from mc1opt.errors import WorkerError

raise WorkerError("torch 2.0 and torchvision 0.1 do not belong together")
