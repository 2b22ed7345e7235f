"""Facts: the numbers that a method gives beside the map of one sample."""

from torch import Tensor

from whybox.core.explanation import Explanation
from whybox.plot import is_change, number
from whybox.report.change import change_lines
from whybox.report.names import percent

# Those that are shares of 1.
_SHARES = ("kept_probability", "left_probability", "original_probability", "area", "r2")

# Under this name a method that was fitted keeps shares that were measured on samples held out then.
_HELD_OUT = "validation"


def facts(explanation: Explanation, sample: int) -> dict[str, float]:
    """The details that are a single number of each sample; and of a fitted method, what was measured in validation."""
    own = {
        name: float(value[sample])
        for name, value in explanation.details.items()
        if isinstance(value, Tensor) and value.shape == (len(explanation),)
    }
    held_out = explanation.details.get(_HELD_OUT, {})
    return own | {f"{_HELD_OUT}_{name}": float(value) for name, value in held_out.items()}


def facts_text(explanation: Explanation, sample: int) -> str:
    """The same in a line: "kept probability 83 %, area 12 %, evaluations 240"; "" where there are none.

    Of a contrast in a latent space, what came of it.
    """
    if is_change(explanation):
        return " ".join(change_lines(explanation, sample))
    return ", ".join(
        f"{name.replace('_', ' ')} {percent(value) if name in _SHARES or name.startswith(_HELD_OUT) else number(value)}"
        for name, value in facts(explanation, sample).items()
    )
