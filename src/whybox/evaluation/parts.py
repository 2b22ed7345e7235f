"""What a comparison is made of, as plain values."""

from dataclasses import dataclass
from typing import Any

from whybox.core.configs import config_text


@dataclass(frozen=True)
class Explained:
    """A method that has explained the samples, and what that cost; a control is one that knows nothing of the model."""

    method: dict[str, Any]
    control: bool
    seconds: float
    forwards: int
    backwards: int


@dataclass(frozen=True)
class Criterion:
    """A metric with its infill: one column of the table.

    Attributes:
        metric: its configuration.
        family, higher_is_better: as in `Metric`.
        limit: the score beyond which a method must not be relied on, or None.
        limit_says: in words, why not.
    """

    metric: dict[str, Any]
    family: str
    higher_is_better: bool
    limit: float | None = None
    limit_says: str = ""

    @property
    def infill(self) -> str:
        """What replaces what is removed, as text; "" for a metric that replaces nothing."""
        return config_text(self.metric["infill"]) if self.metric.get("infill") else ""

    @property
    def apart_from_infill(self) -> dict[str, Any]:
        """The metric's configuration but for the infill."""
        return {key: value for key, value in self.metric.items() if key != "infill"}


@dataclass(frozen=True)
class Cell:
    """One method by one criterion.

    Attributes:
        values: the score of each sample; NaN where there is none.
        skipped: by reason, the samples (their places among those compared) whose score is missing or means little.
        seconds, forwards, backwards: what was still to do; what others had asked before is not asked again.
    """

    values: tuple[float, ...]
    skipped: dict[str, tuple[int, ...]]
    seconds: float
    forwards: int
    backwards: int


@dataclass(frozen=True)
class Failure:
    """A method that cannot explain this model (metric None), or that a metric cannot score; and why."""

    method: dict[str, Any]
    metric: dict[str, Any] | None
    message: str
