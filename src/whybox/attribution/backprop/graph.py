"""What is known of the autograd graph while the model runs: which of its nodes the engine has answered for."""

from typing import Any
from weakref import WeakSet

from torch import Tensor
from torch.autograd.function import BackwardCFunction

Node = Any  # torch's nodes have no common type: those of scripted parts are no autograd.graph.Node

_VIEWS = {
    "AsStrided", "View", "Alias", "Select", "Slice", "Squeeze", "Unsqueeze", "Permute", "Transpose", "T", "Expand",
    "Unbind", "Split", "Diagonal", "Unfold", "UnsafeView", "ReshapeAlias", "SplitWithSizes", "Unflatten",
}  # fmt: skip


class Graph:
    """The nodes that depend on the explained input by operations with a rule, and those known not to depend on it."""

    def __init__(self) -> None:
        self._known: set[Node] = set()
        self._rules: WeakSet[Node] = WeakSet()  # what a rule has saved goes where the model drops its output
        self._constant: set[Node] = set()

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()
        self._rules.clear()
        self._constant.clear()

    def add(self, node: Node | None) -> None:
        """Answer for this node."""
        if isinstance(node, BackwardCFunction):
            self._rules.add(node)
        elif node is not None:
            self._known.add(node)

    def __contains__(self, node: Node) -> bool:
        return node in self._known or node in self._rules

    def unseen(self, node: Node) -> Node | None:
        """A node, from this one down, that depends on the explained input right below it but that nobody answers for.

        None if nothing from here down depends on the explained input.
        """
        if node in self._constant:
            return None
        stack, seen = [node], {node}
        while stack:
            node = stack.pop()
            for following, _ in node.next_functions:
                if following is None or following in seen or following in self._constant:
                    continue
                if following in self:
                    return node
                seen.add(following)
                stack.append(following)
        self._constant |= seen
        return None


def is_view(x: Tensor) -> bool:
    """Whether a view's history is made of view operations alone, as autograd makes it anew after writing in place."""
    base = x._base
    node, end = x.grad_fn, None if base is None else base.grad_fn
    while node is not None and node is not end:
        if node.name().rstrip("0123456789").removesuffix("Backward") not in _VIEWS:
            return False
        node = node.next_functions[0][0]
    return base is not None and node is end
