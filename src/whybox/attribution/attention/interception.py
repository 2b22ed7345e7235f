"""The attention probabilities of any model, caught while its own forward runs."""

from inspect import signature
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from whybox.attribution.backprop.kinds.attention import in_steps
from whybox.attribution.backprop.running import Running
from whybox.attribution.backprop.table import named
from whybox.core.errors import ModelError


def _all(*names: str) -> set[Any]:
    return {function for name in names for function in named(name)}


_SOFTMAX = _all("softmax", "_safe_softmax")
_PRODUCTS = _all("matmul", "__matmul__", "bmm")
# What a model may do with probabilities before it multiplies the values by them.
_PASSING = _all(
    "dropout", "to", "type_as", "type", "float", "double", "half", "bfloat16", "contiguous", "clone", "view", "reshape",
    "flatten", "unflatten", "unsqueeze", "masked_fill", "mul", "__mul__", "nan_to_num",
)  # fmt: skip
_MULTI_HEAD = signature(F.multi_head_attention_forward)


class Attention(TorchFunctionMode):
    """Keeps the probabilities of every attention of one forward pass in this thread, as parts of its autograd graph.

    Fused attention is computed in steps; a softmax over the last axis whose result a matrix product reads is attention
    written by hand. Nothing of the model is touched.

    Attributes:
        maps: the probabilities of each attention in the order in which they ran, shaped as the model has them.
        places: the dotted path of the module where each ran.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.maps: list[Tensor] = []
        self.places: list[str] = []
        self._running = Running(module)

    def __enter__(self) -> "Attention":
        self._watched = self._running.watched(lambda output: None)
        self._watched.__enter__()
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)  # type: ignore[no-untyped-call]
        self._watched.__exit__(None, None, None)

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if function is F.scaled_dot_product_attention:
            return in_steps(*args, **{**kwargs, "seen": self._keep})
        if function is F.multi_head_attention_forward:
            return self._multi_head(*args, **kwargs)
        if function in _PRODUCTS and args and _is_marked(args[0]):
            return function(self._keep(args[0]), *args[1:], **kwargs)
        if function is torch.einsum and any(map(_is_marked, args)):
            return self._einsum(*args)
        output = function(*args, **kwargs)
        if function in _SOFTMAX:
            axis = args[1] if len(args) > 1 else kwargs.get("dim")
            if isinstance(axis, int) and axis in (-1, output.ndim - 1):
                output._whybox_probabilities = True
        elif function in _PASSING and any(map(_is_marked, args)) and isinstance(output, Tensor):
            output._whybox_probabilities = True  # type: ignore[attr-defined]
        return output

    def _keep(self, probabilities: Tensor) -> Tensor:
        """Note these probabilities; the model goes on with what is returned."""
        if not probabilities.requires_grad:  # a frozen model on token numbers
            probabilities = probabilities.detach().requires_grad_()
        self.maps.append(probabilities)
        self.places.append(self._running.where)
        return probabilities

    def _multi_head(self, *args: Any, **kwargs: Any) -> Any:
        """torch.nn's attention, asked for the probabilities of every head."""
        given = _MULTI_HEAD.bind(*args, **kwargs).arguments
        wanted, averaged = given.get("need_weights", True), given.get("average_attn_weights", True)
        names = ("query", "key", "value")
        if not any(given[name].requires_grad for name in names):
            query = given["query"]
            start = query.detach().requires_grad_()  # torch looks whether the three are the same tensor
            given |= {name: start for name in names if given[name] is query}
        output, weights = F.multi_head_attention_forward(
            **given | {"need_weights": True, "average_attn_weights": False}
        )
        assert weights is not None
        base = weights._base  # what torch returns is a view, made for the caller, of what the values were multiplied by
        self._keep(weights if base is None else base)
        if not wanted:
            return output, None
        return output, weights.mean(-3) if averaged else weights

    def _einsum(self, equation: Any, *operands: Any) -> Tensor:
        """A product written as Einstein's sum over the keys, the last axis of the probabilities."""
        parts = equation.replace(" ", "").partition("->") if isinstance(equation, str) else ("", "", "")
        terms = parts[0].split(",")
        if len(terms) != len(operands) or any(
            term[-1:] in parts[2] for term, x in zip(terms, operands, strict=True) if _is_marked(x)
        ):
            raise ModelError(
                f"attention in module {self._running.where!r} is read by the sum {equation!r}, which is not one over "
                "its last axis alone; write it as probabilities @ values"
            )
        return torch.einsum(equation, *(self._keep(x) if _is_marked(x) else x for x in operands))


def _is_marked(x: Any) -> bool:
    return isinstance(x, Tensor) and getattr(x, "_whybox_probabilities", False)
