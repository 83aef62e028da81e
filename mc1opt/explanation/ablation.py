"""The path from one config to another, a group of differences at a time, and what the end can do without.

Ablation analysis (Fawcett and Hoos, "Analysing differences between algorithm configurations through
ablation", 2016): at each step every group that is left is applied to the config so far, and the best of them
is taken. They race, as configs do in irace (Lopez-Ibanez et al., 2016): seed by seed, and one that is clearly
not the best trains no further seeds. Not here: training (`mc1opt.explanation.explain`).
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from mc1opt.config import Config, config_id
from mc1opt.explanation.groups import Differences
from mc1opt.metric import Metric
from mc1opt.text import plural
from mc1opt.uncertainty import Noise, pooled_noise, stable

LEVEL = 0.05
"""Level of the test by which a group is clearly not the best: over all pairs and looks of a step together."""
SOURCE, TARGET = "source", "target"

Wanted = tuple[str, Config, int]
"""A training: the name and the config, and the index of its seed."""
Measure = Callable[[Sequence[Wanted], int], Sequence[float | None]]
"""Gives the values of trainings, None where one failed; told how many may follow them, at most."""


@dataclass(frozen=True)
class Taken:
    """A step of the path."""

    name: str
    """Of its groups; `SOURCE` where the path begins."""
    config: Config
    """After it."""
    others: Mapping[str, Config] = field(default_factory=dict)
    """What competed with it, by name."""


@dataclass
class Ablation:
    """What has been measured of two configs and those between them, and the order of measuring.

    All verdicts rest on whole rounds: each config that races has the same seeds. So they depend neither on
    the number of workers nor on interruptions.
    """

    differences: Differences
    seeds: int
    """Trainings of each config."""
    metric: Metric
    least_std: float
    """See `pooled_noise`."""
    measure: Measure
    write: Callable[[str], None] = lambda _line: None
    """Takes a line of progress."""
    values: dict[str, dict[int, float | None]] = field(default_factory=dict)
    """By config id and index of the seed."""
    path: list[Taken] = field(default_factory=list)

    def run(self) -> None:
        """Measures the path, then the target without each group.

        Raises:
            whatever `measure` raises.
        """
        source, target = self.differences.config(set()), self.differences.target
        assert source is not None
        left = len(self.differences.groups)
        self._train(
            {SOURCE: source, TARGET: target}, range(self.seeds), self._later([source, target], left + 1)
        )
        self.path = [Taken(SOURCE, source)]
        applied: frozenset[str] = frozenset()
        while configs := self.differences.next_configs(applied):
            named = {name_of(groups): config for groups, config in configs.items()}
            best = self._race(named, left - len(applied))
            applied = next(applied | groups for groups in configs if name_of(groups) == best)
            others = {name: config for name, config in named.items() if name != best}
            self.path.append(Taken(best, named[best], others))
            self.write(f"Step {len(self.path) - 1}: {best}, {self._words(named[best])}")
        without = {f"without {group}": config for group, config in self.differences.without.items()}
        self._train(without, range(self.seeds), 0)

    def known(self, config: Config) -> list[float]:
        """The values of a config, by seed, without failed trainings."""
        values = self.values.get(config_id(config), {})
        return [value for _, value in sorted(values.items()) if value is not None]

    def failures(self, config: Config) -> int:
        """How many trainings of a config have failed."""
        return list(self.values.get(config_id(config), {}).values()).count(None)

    @property
    def noise(self) -> Noise | None:
        """The noise of a training, pooled over all configs so far but for unstable ones."""
        return pooled_noise(stable(self._groups()), self.least_std)

    def _groups(self) -> list[list[float]]:
        return [[v for v in values.values() if v is not None] for values in self.values.values()]

    def is_unstable(self, config: Config) -> bool:
        """Whether its trainings lie much further apart than those of other configs."""
        values = self.known(config)
        return len(values) > 1 and sorted(values) not in map(sorted, stable(self._groups()))

    def mean(self, config: Config) -> float | None:
        """The mean of a config over seeds; None where it has no value."""
        values = self.known(config)
        return statistics.fmean(values) if values else None

    def difference(self, config: Config, other: Config) -> float | None:
        """The mean of a config minus that of another one."""
        mean, before = self.mean(config), self.mean(other)
        return None if mean is None or before is None else mean - before

    def interval(self, center: float | None, *configs: Config) -> tuple[float, float] | None:
        """The 95 % interval of a config's mean, or of the difference of two.

        None where it is not known, such as of unstable configs.
        """
        if center is None or self.noise is None or any(map(self.is_unstable, configs)):
            return None
        half = self.noise.half_width(*(len(self.known(config)) for config in configs))
        return center - half, center + half

    def _race(self, configs: dict[str, Config], left: int) -> str:
        """The name of the best config, over all seeds; `left` groups are not applied."""
        active, seed = dict(configs), 0
        while seed < self.seeds:
            seeds = range(seed, self.seeds if len(active) == 1 else seed + 1)
            ahead = len(active) * (self.seeds - seeds.stop)
            self._train(active, seeds, ahead + self._later(list(active.values()), left))
            seed = seeds.stop
            if seed < self.seeds:
                for name in self._clearly_worse(active, len(configs)):
                    del active[name]
        best = self._leader(active)
        sound = {name: config for name, config in configs.items() if not self.failures(config)}
        # Those that were clearly worse than one that has failed since compete again.
        return self._race(sound, left) if sound and self.failures(configs[best]) else best

    def _leader(self, configs: Mapping[str, Config]) -> str:
        """The best mean of those with the fewest failures; the first one of equals."""

        def rank(name: str) -> tuple[int, float]:
            values = self.known(configs[name])
            score = self.metric.score(round(statistics.fmean(values), 12)) if values else -math.inf
            return -self.failures(configs[name]), score

        return max(configs, key=rank)

    def _clearly_worse(self, configs: Mapping[str, Config], competitors: int) -> list[str]:
        """Those that cannot be the best: a training failed, or a pooled t test says so (Bonferroni)."""
        leader, noise = self._leader(configs), self.noise
        best = self.known(configs[leader])
        comparisons = math.comb(competitors, 2) * (self.seeds - 1)
        worse = []
        for name, config in configs.items():
            values = self.known(config)
            if self.failures(config) > self.failures(configs[leader]):
                why = "one of its trainings failed"
            elif name == leader or noise is None or not values:
                continue
            else:
                difference = statistics.fmean(best) - statistics.fmean(values)
                if noise.p(difference, len(best), len(values)) * comparisons >= LEVEL:
                    continue
                why = f"clearly worse than {leader} over {plural(len(values), 'seed')}"
            worse.append(name)
            self.write(f"{name} stops early: {why}")
        return worse

    def _words(self, config: Config) -> str:
        mean = self.mean(config)
        return "failed" if mean is None else f"{self.metric.label} {mean:.4f}"

    def _train(self, configs: Mapping[str, Config], seeds: Sequence[int], later: int) -> None:
        """Measures what is not known yet."""
        wanted: dict[tuple[str, int], Wanted] = {}
        for seed in seeds:
            for name, config in configs.items():
                key = config_id(config)
                if seed not in self.values.setdefault(key, {}):
                    wanted.setdefault((key, seed), (name, config, seed))
        if wanted:
            found = self.measure(list(wanted.values()), later)
            for (key, seed), value in zip(wanted, found, strict=True):
                self.values[key][seed] = value

    def _later(self, active: Sequence[Config], left: int) -> int:
        """Trainings, at most, after the step that applies one of `left` groups, the `active` ones left out.

        In the last step but one, the target without a group races; in the last one, there is the target.
        """
        ids = set(map(config_id, active))
        without = set(map(config_id, self.differences.without.values())) - ids
        missing = sum(self.seeds - len(self.values.get(each, {})) for each in without)
        return self.seeds * sum(range(3, left)) + missing


def name_of(groups: frozenset[str]) -> str:
    """The name of groups that are applied together."""
    return " + ".join(sorted(groups))
