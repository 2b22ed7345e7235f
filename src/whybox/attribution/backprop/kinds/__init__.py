"""The table of operations: what each torch function is to relevance. Importing this fills `engine.KINDS`."""

from whybox.attribution.backprop.kinds import activations, elementwise, linear, norms, shapes

__all__ = ["activations", "elementwise", "linear", "norms", "shapes"]
