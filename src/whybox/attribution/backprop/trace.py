"""Trace: where the relevance goes, operation by operation, and what is absorbed on the way."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from whybox.attribution.backprop.absorbed import Charge
from whybox.core.errors import ModelError

CAUSES = {
    "bias": "biases",
    "epsilon": "stabilisers",
    "zero": "zero activations",
    "rule": "uncovered outputs",
    "constant": "constants",
    "softmax": "softmax offsets",
    "unknown": "operations without a rule",
}
"""What absorbs relevance, with a word for it: biases and shifts; stabilisers; denominators and activations of zero;
rules whose groups do not cover all outputs; constants that are added, padded or written in; the offset of softmax;
operations taken by gradient."""


@dataclass(frozen=True)
class Step:
    """One operation of the model's forward pass.

    Attributes:
        name: the torch function, as "torch.conv2d".
        module: the dotted path of the module that it runs in; "" in the model's own forward.
        kind: which entry of the table answers it, as "convolution" or "addition".
        rule: the composite's rule, for a linear map; else "".
        layer: the type of torch.nn's own layer that it runs in, as "Conv2d"; "" where a model spells it out itself,
            None outside the model, where the target picks its score.
        inputs: for each argument that depends on the explained input, which step made it; −1 for the input itself.
        within: the torch function that was taken apart into this and other steps; else "".
    """

    name: str
    module: str
    kind: str
    rule: str = ""
    layer: str | None = ""
    inputs: tuple[int, ...] = ()
    within: str = ""


@dataclass(frozen=True, eq=False)
class Trace:
    """The relevance at every operation, for n samples and k operations in the order in which they run.

    Attributes:
        steps: the operations.
        at_output: the relevance that arrives at each operation's output (n, k).
        at_input: the relevance that it hands on to its inputs (n, k).
        absorbed: cause → what each operation absorbs by it (n, k), by the cause's own formula.
        size: the sum of magnitudes behind these sums (n, k), against which rounding is to be judged.
        score: the target's score (n,).
        relevance: the sum of the relevance at the explained input (n,).
        not_finite: for each sample the operation where a value became NaN, else the one where relevance did on its way
            back, or None.
    """

    steps: tuple[Step, ...]
    at_output: Tensor
    at_input: Tensor
    absorbed: dict[str, Tensor]
    size: Tensor
    score: Tensor
    relevance: Tensor
    not_finite: tuple[Step | None, ...]

    @property
    def gap(self) -> Tensor:
        """|arrived − handed on − absorbed| at each operation (n, k), as a share of the magnitudes there."""
        lost = self.at_output - self.at_input - sum(self.absorbed.values())
        return lost.abs() / self.size.clamp_min(torch.finfo(self.size.dtype).tiny)

    @property
    def total_gap(self) -> Tensor:
        """|score − relevance − all that was absorbed| for each sample (n,), as a share of the largest magnitude."""
        lost = self.score - self.relevance - sum(amount.sum(1) for amount in self.absorbed.values())
        return lost.abs() / self.size.amax(1).clamp_min(torch.finfo(self.size.dtype).tiny)

    def details(self) -> dict[str, Any]:
        """The trace as plain values, and what each cause absorbs in all (n,): the details of an explanation."""
        return {
            "trace": {
                "steps": tuple(
                    {"name": s.name, "module": s.module, "kind": s.kind, "rule": s.rule} for s in self.steps
                ),
                "at_output": self.at_output,
                "at_input": self.at_input,
                "absorbed": self.absorbed,
            },
            "absorbed": {cause: amount.sum(1) for cause, amount in self.absorbed.items()},
        }

    def __str__(self) -> str:
        """A table of the first sample."""
        causes = [cause for cause, amount in self.absorbed.items() if bool((amount != 0).any())]
        head = ("operation", "module", "kind", "rule", "arrives", "handed on", *causes)
        rows = [
            (
                step.name.removeprefix("torch.").removeprefix("nn.functional."), step.module, step.kind, step.rule,
                *(f"{values[0, i]:.4g}" for values in (self.at_output, self.at_input)),
                *(f"{self.absorbed[cause][0, i]:.3g}" for cause in causes),
            )
            for i, step in enumerate(self.steps)
        ]  # fmt: skip
        widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in (head, *rows))

    @staticmethod
    def joined(traces: "Sequence[Trace]") -> "Trace":
        """The traces of several samples as one.

        Raises:
            ModelError: the model runs other operations for one sample than for another.
        """
        first = traces[0]
        if any(trace.steps != first.steps for trace in traces):
            raise ModelError("the model runs other operations for one sample than for another; trace them one by one")

        def rows(name: str) -> Tensor:
            return torch.cat([getattr(trace, name) for trace in traces])

        return Trace(
            steps=first.steps,
            at_output=rows("at_output"),
            at_input=rows("at_input"),
            absorbed={cause: torch.cat([trace.absorbed[cause] for trace in traces]) for cause in first.absorbed},
            size=rows("size"),
            score=rows("score"),
            relevance=rows("relevance"),
            not_finite=tuple(step for trace in traces for step in trace.not_finite),
        )


@dataclass
class Account:
    """What is booked for one operation while relevance travels back through it, over a batch of one sample."""

    step: Step
    at_output: float = 0.0
    at_input: float = 0.0
    absorbed: dict[str, float] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0.0))
    out_size: float = 0.0
    in_size: float = 0.0
    is_nan: bool = False
    spoils: bool = False

    def arrive(self, value: Tensor | None, c: Tensor) -> None:
        """Relevance arrives at an output of this value."""
        relevance = times(c, value)
        self.at_output += float(relevance.sum(dtype=torch.float64))
        self.out_size += float(relevance.abs().sum(dtype=torch.float64))

    def hand_on(self, value: Tensor | None, c: Tensor) -> None:
        """Relevance is handed on to an input of this value."""
        relevance = times(c, value)
        self.at_input += float(relevance.sum(dtype=torch.float64))
        self.in_size += float(relevance.abs().sum(dtype=torch.float64))

    def absorb(self, charge: Charge, c: Tensor) -> None:
        """Relevance is absorbed at an output."""
        for cause, amount in charge(c).items():
            self.absorbed[cause] += float(amount.sum(dtype=torch.float64))
            self.in_size += float(amount.abs().sum(dtype=torch.float64))


def times(c: Tensor, value: Tensor | None) -> Tensor:
    """R from c, also where a value that nothing reaches is infinite; without a value, c already is R."""
    return c if value is None else torch.where(c == 0, 0, c * value)


class Ledger:
    """The accounts of all operations of one forward pass, kept by hooks on its autograd graph."""

    def __init__(self) -> None:
        self.accounts: list[Account] = []
        self._values: dict[tuple[Any, int], Tensor | None] = {}

    def knows(self, x: Tensor) -> bool:
        """Whether the tensor, as it now is, is known."""
        return (x.grad_fn, x.output_nr) in self._values

    def know(self, x: Tensor, value: Tensor | None) -> bool:
        """Remember the value of a tensor where relevance arrives as c (None: where it arrives as R); False if known."""
        if x.grad_fn is None or self.knows(x):
            return False
        self._values[x.grad_fn, x.output_nr] = value
        return True

    def open(self, step: Step, outputs: Sequence[tuple[Tensor, Tensor | None]]) -> Account | None:
        """Book what passes through the nodes between these outputs, with their values, and what is known already."""
        fresh = [(x, value) for x, value in outputs if self.know(x, value)]
        if not fresh:
            return None
        account = Account(step)
        account.is_nan = any(value is not None and bool(value.isnan().any()) for _, value in fresh)
        for x, value in fresh:
            on_arrival((x.grad_fn, x.output_nr), partial(account.arrive, value))
        for node, edges in self._edges({x.grad_fn for x, _ in fresh}):
            node.register_hook(_hand_on(account, edges))
        self.accounts.append(account)
        return account

    def _edges(self, starts: set[Any]) -> Iterator[tuple[Any, dict[int, Tensor | None]]]:
        """The nodes from these ones down to what is known, with the values at their edges into it."""
        stack, seen = list(starts), set(starts)
        while stack:
            node = stack.pop()
            edges = {}
            for place, key in enumerate(node.next_functions):
                if key in self._values:
                    edges[place] = self._values[key]
                elif key[0] is not None and key[0] not in seen:
                    seen.add(key[0])
                    stack.append(key[0])
            yield node, edges


def on_arrival(edge: tuple[Any, int], book: Callable[[Tensor], None]) -> None:
    """Call this with the gradient that arrives at an output of a node, when it does."""
    node, place = edge

    def hook(arriving: Sequence[Tensor | None]) -> None:
        c = arriving[place] if place < len(arriving) else None
        if c is not None:
            book(c)

    node.register_prehook(hook)


def _hand_on(account: Account, edges: dict[int, Tensor | None]) -> Callable[..., None]:
    def hook(handed: Sequence[Tensor | None], arrived: Sequence[Tensor | None]) -> None:
        for place, value in edges.items():
            c = handed[place]
            if c is not None:
                account.hand_on(value, c)
        sound = all(bool(torch.isfinite(c).all()) for c in arrived if c is not None)
        account.spoils |= sound and not all(bool(torch.isfinite(c).all()) for c in handed if c is not None)

    return hook
