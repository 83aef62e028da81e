"""A Ray cluster of several node processes on this machine, and pools on it."""

import contextlib
import os
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from mc1opt.workers.pool import Pool
from mc1opt.workers.ray_pool import Cluster, RayPool
from tests.support.curves import SWITCHES_VARIABLE, TRAINER

ROOT = Path(__file__).parents[2]


class Nodes:
    """The nodes of a cluster; what happens to learning curves there, the test that runs now decides.

    Args:
        folder: an empty one, for the cluster to keep.
        cpus: of the first node.
    """

    def __init__(self, folder: Path, cpus: int) -> None:
        from ray.cluster_utils import Cluster as Started

        self._link = folder / "switches"
        self._environment = {
            SWITCHES_VARIABLE: str(self._link),
            "PYTHONPATH": str(ROOT),
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_health_check_period_ms": "500",  # a lost node is noticed after some of them
        }
        with self._inherited():
            self._started = Started(
                initialize_head=True, head_node_args={"num_cpus": cpus, "include_dashboard": False}
            )
        self.address: str = self._started.address
        self._added: list[Any] = []

    def add(self, cpus: int) -> Any:
        """A further node."""
        with self._inherited():
            self._added.append(self._started.add_node(num_cpus=cpus))
        return self._added[-1]

    def kill(self, node: Any) -> None:
        """Kills a node with all that runs on it."""
        self._added.remove(node)
        self._started.remove_node(node, allow_graceful=False)

    def kill_added(self) -> None:
        """Kills all nodes but the first."""
        for node in list(self._added):
            self.kill(node)

    def close(self) -> None:
        """Ends all nodes."""
        self._started.shutdown()

    def use_switches(self) -> None:
        """Has the workers take the switches of the test that runs now."""
        self._link.unlink(missing_ok=True)
        self._link.symlink_to(os.environ.get(SWITCHES_VARIABLE, self._link.parent))

    @contextlib.contextmanager
    def _inherited(self) -> Iterator[None]:
        before = dict(os.environ)
        os.environ |= self._environment
        os.environ.pop("MC1OPT_DATA", None)  # by which a test knows what it has started
        try:
            yield
        finally:
            os.environ.clear()
            os.environ |= before


@contextlib.contextmanager
def ray_nodes(cpus: int) -> Iterator[Nodes]:
    """A cluster whose first node has so many CPUs."""
    with tempfile.TemporaryDirectory() as folder:
        nodes = Nodes(Path(folder), cpus)
        try:
            yield nodes
        finally:
            nodes.close()


@contextlib.contextmanager
def connected(nodes: Nodes) -> Iterator[Callable[..., Pool]]:
    """Connects this process; yields a function that makes pools of so many workers (None: all)."""
    import ray

    cluster = Cluster(nodes.address)
    cluster.connect()

    def make(workers: int | None, **options: Any) -> Pool:
        nodes.use_switches()
        return RayPool(cluster, workers, **{"trainer": TRAINER, **options})

    try:
        yield make
    finally:
        ray.shutdown()
