"""The table of operations: what each torch function is to relevance. Importing this fills `table.KINDS`."""

from whybox.attribution.backprop.kinds import (
    activations,
    attention,
    averages,
    elementwise,
    linear,
    norms,
    products,
    recurrence,
    shapes,
    writing,
)

__all__ = [
    "activations",
    "attention",
    "averages",
    "elementwise",
    "linear",
    "norms",
    "products",
    "recurrence",
    "shapes",
    "writing",
]
