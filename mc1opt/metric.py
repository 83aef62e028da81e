"""What a search aims at: a metric, what an image counts in the loss, and how large networks may be.

A metric is accuracy, another known one, or a function of the study file.

A reported, stored or shown value is always the metric's own, and the Optuna study has the metric's direction.
Whoever compares values takes `Metric.score` of them: larger is better. No NumPy here: the functions are in
`mc1opt.metric_functions`.
"""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ClassWeights = Literal["balanced"]
"""What an image counts in the loss: as much as its class is rare, n / (classes * count of its class)."""
Direction = Literal["maximize", "minimize"]
DIRECTIONS: tuple[Direction, ...] = ("maximize", "minimize")

LABELS = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "log_loss": "log loss",
    "auroc": "AUROC",
}
"""The known metrics, for people."""
SHARES = ("accuracy", "balanced_accuracy", "macro_f1", "auroc")
"""Of them, those that lie between 0 and 1, 1 being the best."""
FUNCTION = "metric"
"""The name of a study file's own function."""


def score(value: float, direction: Direction) -> float:
    """A value as a number of which larger is better; the score of a score is the value."""
    return value if direction == "maximize" else -value


def known_direction(name: str) -> Direction:
    """The direction of a known metric."""
    return "maximize" if name in SHARES else "minimize"


class Metric(BaseModel):
    """A metric of logits and labels, computed over all validation images."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    name: str = Field(default="accuracy", pattern=r"^\w{1,40}$")
    """One of `LABELS`, or the name of a study file's own."""
    direction: Direction = "maximize"
    path: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """The study file whose function `metric` it is; None for a known one."""
    fingerprint: str | None = Field(default=None, exclude_if=lambda value: value is None)
    """What that function gives for fixed draws, as a hash: so a changed one is noticed."""

    @model_validator(mode="after")
    def _is_known_or_a_function(self) -> "Metric":
        if self.is_own:
            return self
        if self.name not in LABELS:
            raise ValueError(f"unknown metric {self.name!r}; known: {', '.join(LABELS)}")
        if self.direction != known_direction(self.name):
            raise ValueError(f"{self.name} has the direction {known_direction(self.name)!r}")
        return self

    @property
    def is_own(self) -> bool:
        """Whether it is a function of a study file."""
        return self.path is not None or self.fingerprint is not None

    @property
    def is_accuracy(self) -> bool:
        """Whether it is the accuracy, beside which nothing else is shown."""
        return self == ACCURACY

    @property
    def is_share(self) -> bool:
        """Whether it lies between 0 and 1, 1 being the best: differences are then told in points."""
        return not self.is_own and self.name in SHARES

    @property
    def label(self) -> str:
        """For people."""
        return self.name if self.is_own else LABELS[self.name]

    @property
    def identity(self) -> dict[str, Any]:
        """What tells it from others: all but where its file lies."""
        return self.model_dump(exclude={"path"})

    def score(self, value: float) -> float:
        """See the function `score`."""
        return score(value, self.direction)

    def difference(self, amount: float, sign: str = "") -> str:
        """A difference of two values for people: in points of a share, else in the metric's own unit."""
        return f"{100.0 * amount:{sign}.1f}" if self.is_share else f"{amount:{sign}.4g}"

    @property
    def unit(self) -> str:
        """Of a `difference`."""
        return "points" if self.is_share else f"of {self.label}"


ACCURACY = Metric()


def known_metric(name: str) -> Metric:
    """A known metric by its name.

    Raises:
        ValueError: there is none of that name.
    """
    return Metric(name=name, direction=known_direction(name))


class Aim(BaseModel):
    """What a study file says of its aim."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    metric: Metric = ACCURACY
    class_weights: ClassWeights | None = None
    """None where every image counts the same."""
    parameters: int | None = Field(default=None, ge=1)
    """Most trainable parameters of a network; None for no limit."""
    macs: int | None = Field(default=None, ge=1)
    """Most multiply-accumulates an image; None for no limit but `--max-macs`."""

    @property
    def constraints(self) -> dict[str, int]:
        """The limits by name, as in CONSTRAINTS."""
        return self.model_dump(include={"parameters", "macs"}, exclude_none=True)

    def allows(self, *, parameters: int, macs: int) -> bool:
        """Whether a network is within the limits."""
        limits = self.constraints
        return parameters <= limits.get("parameters", parameters) and macs <= limits.get("macs", macs)
