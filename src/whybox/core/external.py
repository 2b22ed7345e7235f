"""External: a callable of another library as a Method, so that it can be explained with, wrapped and compared."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from whybox.core.errors import InputError, ModelError
from whybox.core.method import Method, Taxonomy
from whybox.core.taps import count_rows
from whybox.core.target import Logit
from whybox.core.task import Task
from whybox.core.tree import Inputs, as_tuple, each


@dataclass(frozen=True)
class External(Method):
    """Relevance R = function(module, inputs, target): whatever another library's callable gives.

    `function` is called with the module, the inputs and the class indices (n,), and returns relevance of the
    input's rank. Example: `External(lambda net, x, y: captum.attr.Saliency(net).attribute(x, y), "captum saliency")`.
    Only class targets can be passed on. The whole batch goes to the function at once.
    Cost: the callable's; its forward samples are counted, its backward ones are not.
    Limits: equal and hashable by the function's identity; cannot be written to a configuration file.
    Source: the other library's.

    Args:
        function: the callable.
        name: what to call it in tables.
    """

    function: Callable[[torch.nn.Module, Any, Tensor], Any]
    name: str = "external"

    taxonomy = Taxonomy(shows="features", needs="outputs", relation="proxy")

    def attribute(self, task: Task) -> Inputs:
        target = task.target
        if type(target) is not Logit or not isinstance(target.index, Tensor) or task.at is not None:
            raise InputError(
                f"{self.name} can only explain the score of a class at the input; use an int or None as target"
            )
        if task.kwargs:
            raise InputError(f"{self.name} cannot pass forward_kwargs on; put the model into a module that sets them")
        index = target.index.to(as_tuple(task.inputs)[0].device)
        with count_rows(task.model.module, task.cost.add_forwards):
            relevance = self.function(task.model.module, each(Tensor.clone, task.inputs), index)
        if not all(isinstance(part, Tensor) for part in (relevance if isinstance(relevance, tuple) else (relevance,))):
            raise ModelError(f"{self.name} gave a {type(relevance).__name__}, not a Tensor or a tuple of them")
        detached: Inputs = each(Tensor.detach, relevance)
        return detached

    def config(self) -> dict[str, Any]:
        return {"name": self.name, "external": getattr(self.function, "__qualname__", repr(self.function))}
