"""Pitfalls: where tools that give rules to modules, not to operations, would go wrong on a model.

Measured with zennit 0.5.1 and Captum 0.9 on small nets of which the right answer is known; attention, recurrence and
operations without a rule are as reported for these versions.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise

from torch import nn

from whybox.attribution.backprop.trace import Step
from whybox.inspection.operations import NORMS, WEIGHTED, called, function, multiplies_signals


@dataclass(frozen=True)
class Pitfall:
    """Something in the model that module-based tools would explain wrongly.

    Attributes:
        name: what it is.
        operations: the torch functions, or the types of the modules.
        count: how often it runs for one input.
        modules: where, in the order in which they run; "" is the model's own forward.
        why: what goes wrong.
    """

    name: str
    operations: str
    count: int
    modules: tuple[str, ...]
    why: str


def pitfalls(steps: Sequence[Step], module: nn.Module) -> tuple[Pitfall, ...]:
    """The pitfalls of a model, told from what it ran and from the order in which its layers are declared."""
    shared = {source for source, count in Counter(i for step in steps for i in step.inputs).items() if count > 1}
    own = [step for step in _whole(steps) if step.layer is not None]
    found = [_pitfall(name, [step for step in own if fits(step)], why) for name, (fits, why) in _BY_OPERATION.items()]
    joined = [step for step in own if _is_concatenation(step) and shared & set(step.inputs)]
    found.append(_pitfall("concatenation with a tensor that is used elsewhere too", joined, _SHARED))
    runs = Counter((step.module, step.name) for step in own if _has_a_rule(step))
    again = [step for step in own if runs[step.module, step.name] > 1 and _has_a_rule(step)]
    found.append(_pitfall("layer that runs more than once", again, _REUSED))
    found += [_pitfall(name, part, why) for name, part, why in _batch_norms(steps, module)]
    return tuple(pitfall for pitfall in found if pitfall.count)


def _whole(steps: Sequence[Step]) -> Iterator[Step]:
    """The steps as module-based tools would see them: what was taken apart is one again."""
    for (_, within), parts in groupby(steps, key=lambda step: (step.module, step.within)):
        first, *rest = parts
        yield from (replace(first, name=within, kind="fused"),) if within else (first, *rest)


def _pitfall(name: str, steps: Sequence[Step], why: str) -> Pitfall:
    return Pitfall(name, called(steps), len(steps), tuple(dict.fromkeys(step.module for step in steps)), why)


def _spelled_out(*kinds: str) -> Callable[[Step], bool]:
    """Whether a step is of such a kind, and run by no layer of torch.nn."""
    return lambda step: step.kind in kinds and not step.layer


def _by_constants(step: Step) -> bool:
    plain = step.kind in ("addition", "product", "quotient", "multiplied_and_added") and len(step.inputs) == 1
    return plain and not step.layer


def _is_sum(step: Step) -> bool:
    return function(step) in ("sum", "nansum", "cumsum", "lp_pool1d", "lp_pool2d", "lp_pool3d", "fold")


_FUSED = ("attention", "lstm", "gru", "rnn")
_BY_OPERATION: dict[str, tuple[Callable[[Step], bool], str]] = {
    "sum of branches": (
        lambda step: step.kind == "addition" and len(step.inputs) > 1,
        "The gradient hands the whole relevance to every branch, so each such sum doubles it. It has to be a module "
        "with a rule of its own, which zennit's canonizers put into the architectures that they know.",
    ),
    "linear map outside a layer": (
        lambda step: step.kind in (*WEIGHTED, "batch_norm") and len(step.inputs) < 2 and not step.layer,
        "No rule applies: relevance is multiplied by the weights as if it were a gradient.",
    ),
    "product or quotient of two signals": (
        multiplies_signals,
        "A gate, an attention or a normalisation spelled out: each factor gets relevance times the other factor.",
    ),
    "arithmetic with constants": (
        _by_constants,
        "A scale multiplies the relevance, x / 3 thirds it; the share of an added constant goes to the signal.",
    ),
    "average outside a layer": (
        lambda step: step.kind == "average" and not step.layer and not _is_sum(step),
        "The sum of the relevance is right, but it is spread evenly instead of in proportion to the activations.",
    ),
    "sum over an axis": (
        lambda step: step.kind == "average" and not step.layer and _is_sum(step),
        "Every summand gets the whole relevance of the sum.",
    ),
    "activation outside a layer": (
        lambda step: step.kind == "activation" and not step.layer,
        "Relevance is multiplied by the derivative instead of passing through; right for ReLU alone.",
    ),
    "softmax": (
        lambda step: step.kind in ("softmax", "logarithm_of_softmax"),
        "Relevance is multiplied by its derivative, whose columns add up to zero: next to nothing arrives.",
    ),
    "normalisation by statistics of the sample": (
        lambda step: step.kind in NORMS,
        "Taken by its gradient, whose mean is zero, as a layer too: the sum of the relevance is lost.",
    ),
    "attention or recurrence in one operation": (
        lambda step: step.kind == "fused" or any(part in function(step) for part in _FUSED),
        "What happens inside is hidden from every hook: the tools fail, or take it by its gradient.",
    ),
    "operation without a rule": (
        lambda step: step.kind == "unknown" and not any(part in function(step) for part in _FUSED),
        "Taken by its gradient without a word.",
    ),
}

_SHARED = (
    "Captum's map is wrong: what arrives at the shared tensor is taken for the relevance of one of its uses. "
    "zennit's is right."
)
_REUSED = "The hooks keep what its last run has seen for all of its runs: zennit's map is wrong, Captum refuses."
_BATCH_NORM = {
    "batch norm without weights": "zennit's merging of batch norms, which these rules need, fails on it.",
    "batch norm that does not follow its layer": (
        "zennit merges a batch norm into the layer declared right before it. Here that layer does not make its input: "
        "the merged model is another model."
    ),
    "batch norm declared away from its layer": (
        "zennit does not find the layer to merge it into, so relevance passes it and its shift is not accounted for."
    ),
}


def _is_concatenation(step: Step) -> bool:
    return function(step) in ("cat", "concat", "concatenate", "stack", "hstack", "vstack", "dstack", "column_stack")


def _has_a_rule(step: Step) -> bool:
    """Whether module-based tools give the layer that runs a rule that asks for its input."""
    return step.kind in (*WEIGHTED, "batch_norm", "average") and bool(step.layer)


def _batch_norms(steps: Sequence[Step], module: nn.Module) -> Iterator[tuple[str, list[Step], str]]:
    """Batch norms that cannot be merged by the order in which layers are declared."""
    found: dict[str, list[Step]] = {name: [] for name in _BATCH_NORM}
    before = _declared_before(module)
    for step in steps:
        if step.kind == "batch_norm" and step.module in before:
            name = _merged_wrongly(step, steps, before, module)
            if name is not None:
                found[name].append(step)
    return ((name, part, _BATCH_NORM[name]) for name, part in found.items())


def _declared_before(module: nn.Module) -> dict[str, str | None]:
    """Each batch norm → the layer with weights that is declared right before it, if there is one."""
    leaves = [(name, part) for name, part in module.named_modules() if next(part.children(), None) is None]
    return {
        name: before if isinstance(layer, (nn.Linear, nn.modules.conv._ConvNd)) else None
        for (before, layer), (name, part) in pairwise([("", module), *leaves])
        if isinstance(part, nn.modules.batchnorm._BatchNorm)
    }


def _merged_wrongly(step: Step, steps: Sequence[Step], before: dict[str, str | None], module: nn.Module) -> str | None:
    source = steps[step.inputs[0]] if step.inputs and step.inputs[0] >= 0 else None
    maker = source.module if source is not None and source.kind in WEIGHTED and source.layer else None
    declared = before[step.module]
    if declared is not None and not module.get_submodule(step.module).affine:
        return "batch norm without weights"
    if declared == maker:
        return None
    return (
        "batch norm declared away from its layer" if declared is None else "batch norm that does not follow its layer"
    )
