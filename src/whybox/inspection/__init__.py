"""Inspection: what a model is made of, and what that means for explaining it."""

from whybox.inspection.inspecting import Inspection, inspect

__all__ = ["Inspection", "inspect"]
