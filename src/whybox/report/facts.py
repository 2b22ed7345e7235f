"""Facts: the numbers that a method gives beside the map of one sample."""

from torch import Tensor

from whybox.core.explanation import Explanation
from whybox.plot import is_change, number
from whybox.report.change import change_lines
from whybox.report.names import percent

# Those that are shares of 1.
_SHARES = ("kept_probability", "original_probability", "area", "r2")


def facts(explanation: Explanation, sample: int) -> dict[str, float]:
    """The details that are a single number of each sample."""
    return {
        name: float(value[sample])
        for name, value in explanation.details.items()
        if isinstance(value, Tensor) and value.shape == (len(explanation),)
    }


def facts_text(explanation: Explanation, sample: int) -> str:
    """The same in a line: "kept probability 83 %, area 12 %, evaluations 240"; "" where there are none.

    Of a contrast in a latent space, what came of it.
    """
    if is_change(explanation):
        return " ".join(change_lines(explanation, sample))
    return ", ".join(
        f"{name.replace('_', ' ')} {percent(value) if name in _SHARES else number(value)}"
        for name, value in facts(explanation, sample).items()
    )
