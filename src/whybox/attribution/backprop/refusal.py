"""Refusing by name what has no rule, and only where relevance arrives: an auxiliary head may be what it likes."""

from typing import Any

import torch
from torch import Tensor
from torch.overrides import resolve_name

from whybox.core.errors import ModelError

NEVER = {torch.autograd.grad, torch.autograd.backward, Tensor.backward}
"""Functions that would run the rules in the model's own forward pass."""


class Refused(torch.autograd.Function):
    """Forward: nothing. Backward: an error, unless no relevance arrives.

    It hangs on the explained leaves themselves, so that the backward pass never enters what is refused.
    """

    @staticmethod
    def forward(ctx: Any, message: str, value: Tensor, *leaves: Tensor) -> Tensor:
        ctx.message, ctx.inputs = message, 2 + len(leaves)
        return value.clone() if value.is_inference() else value.detach()

    @staticmethod
    def backward(ctx: Any, *c: Any) -> Any:
        if bool((c[0] != 0).any()):
            raise ModelError(ctx.message)
        return (None,) * ctx.inputs


def name(function: Any) -> str:
    """What to call a torch function."""
    found = str(resolve_name(function) or getattr(function, "__qualname__", function))
    return found.replace("_VariableFunctionsClass.", "torch.")


def unknown(function: Any, where: str) -> str:
    """What to say of an operation that the table does not have."""
    return (
        f"no rule is known for the operation {name(function)} {_in(where)}. Register one with "
        f"`@whybox.attribution.backprop.handles({name(function)})`, or take its gradient by choice with "
        "unknown='gradient'"
    )


def unseen(node: Any, where: str) -> str:
    """What to say of an autograd node that no torch function call has announced."""
    called = node.name()
    what, hint = f"the operation {called}", "a scripted or traced part: use its eager version"
    if called == "CheckpointFunctionBackward":
        what, hint = "a reentrant checkpoint", "pass use_reentrant=False to torch.utils.checkpoint"
    elif called == "BackwardHookFunctionBackward":
        what, hint = "a full backward hook", "remove it while the model is explained"
    elif called == "CompiledFunctionBackward":
        what, hint = "a compiled part", "use its eager version"
    elif isinstance(node, torch.autograd.function.BackwardCFunction):
        what = f"the autograd function {called.removesuffix('Backward')}"
        hint = "torch calls it without a word, so that no rule can be applied"
    return (
        f"no rule is known for {what} {_in(where)}: {hint}. Register its own backward as its rule with "
        f"`whybox.attribution.backprop.trust({called!r})`, or take all such gradients by choice with unknown='gradient'"
    )


def circumstance(what: str, where: str, hint: str) -> ModelError:
    """The error about a mode that the model runs under."""
    return ModelError(f"{what} {_in(where)} cannot be explained by rules: {hint}")


def compiled(where: str) -> ModelError:
    """The error about what torch.compile has made."""
    return circumstance("a compiled part", where, "explain the model as it was before torch.compile")


def _in(where: str) -> str:
    return f"in module {where!r}" if where else "in the model's own forward"
