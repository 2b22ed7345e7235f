"""What the operations of a model are, told from the steps of a trace."""

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

from whybox.attribution.backprop.trace import Step, Trace

WEIGHTED = ("convolution", "transposed_convolution", "dense", "matmul", "matmul_and_sum", "einsum")
NORMS = ("layer_norm", "group_norm", "instance_norm", "rms_norm")

# Besides ReLU, the activations whose slope is the same from the origin on: there too a value is x times its slope.
_HOMOGENEOUS = ("leaky_relu", "prelu", "rrelu", "abs")
# What a reversed network takes for a ReLU too.
_RECTIFIERS = ("relu6", "clamp", "clip", "clamp_min", "threshold")


@dataclass(frozen=True)
class Operation:
    """All steps of the same torch function with the same rule.

    Attributes:
        name: the torch function, as "torch.nn.functional.conv2d".
        kind: which entry of LRP's table answers it; "unknown" if none does.
        rule: the composite's rule, for a linear map; else "".
        count: how often it runs for one input.
        modules: the modules that it runs in, in the order in which they first run it; "" is the model's own forward.
        absorbed: cause → the share of the score that it absorbs by it; NaN where the score is zero.
    """

    name: str
    kind: str
    rule: str
    count: int
    modules: tuple[str, ...]
    absorbed: dict[str, float]


def operations(trace: Trace) -> tuple[Operation, ...]:
    """The steps of a trace that are the model's own, gathered."""
    places: dict[tuple[str, str, str], list[int]] = {}
    for i, step in enumerate(trace.steps):
        if step.layer is not None:
            places.setdefault((step.name, step.kind, step.rule), []).append(i)
    return tuple(
        Operation(
            *key,
            count=len(at),
            modules=tuple(dict.fromkeys(trace.steps[i].module for i in at)),
            absorbed={
                cause: absorbed_share(trace, amount[:, at])
                for cause, amount in trace.absorbed.items()
                if bool(amount[:, at].any())
            },
        )
        for key, at in places.items()
    )


def absorbed_share(trace: Trace, amount: Tensor) -> float:
    """What is absorbed (n, k) as a share of the samples' scores; NaN where they are zero."""
    score = float(trace.score.abs().sum())
    return float((amount * trace.score.sign()[:, None]).sum()) / score if score else float("nan")


def function(step: Step) -> str:
    """The plain name of a step's torch function: "add" for torch.Tensor.add_."""
    return step.name.rpartition(".")[2].strip("_")


def called(steps: Iterable[Step]) -> str:
    """Which torch functions these steps run, each once."""
    return ", ".join(dict.fromkeys(function(step) for step in steps))


def multiplies_signals(step: Step) -> bool:
    """Whether two factors, or what is divided and the divisor, both depend on the input."""
    return step.kind in ("product", "quotient", "multiplied_and_added", "matmul", "einsum") and len(step.inputs) > 1


def bends(step: Step) -> bool:
    """Whether an activation is neither a ReLU nor another one that is linear on both sides of zero."""
    return step.kind == "activation" and function(step) not in _HOMOGENEOUS


def is_rectifier(step: Step) -> bool:
    """Whether a reversed network takes the step for a ReLU."""
    return step.kind == "relu" or (step.kind == "activation" and function(step) in _RECTIFIERS)
