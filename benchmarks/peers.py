"""LRP by zennit and by Captum, each at its best: registered once, on a copy of the model that is theirs to change."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from whybox import Model

Work = Callable[[], Tensor]
TARGET = 3
EPSILON = 1e-6
GAMMA = 0.25


def gradient(module: nn.Module, x: Tensor) -> Tensor:
    """The target's input gradient, in plain torch."""
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(module(leaf)[:, TARGET].sum(), leaf)[0]


def zennit(model: Model, x: Tensor, composite: str) -> Work:
    """zennit's attributor, entered once: its canonizer has merged the batch norms before anything is timed."""
    from zennit import composites as built_in
    from zennit.attribution import Gradient
    from zennit.rules import Epsilon
    from zennit.torchvision import ResNetCanonizer
    from zennit.types import Linear

    module = _own(model)
    canonizers = [ResNetCanonizer()] if _has_batch_norm(module) else []
    low, high = (bound.expand_as(x) for bound in model.domain_of(x).bounds(x))
    made = {
        "epsilon": lambda: built_in.LayerMapComposite(
            [*built_in.layer_map_base(EPSILON), (Linear, Epsilon(epsilon=EPSILON))], canonizers=canonizers
        ),
        "epsilon_plus": lambda: built_in.EpsilonPlus(epsilon=EPSILON, canonizers=canonizers),
        "epsilon_plus_flat": lambda: built_in.EpsilonPlusFlat(epsilon=EPSILON, canonizers=canonizers),
        "epsilon_gamma_box": lambda: built_in.EpsilonGammaBox(
            low, high, epsilon=EPSILON, gamma=GAMMA, canonizers=canonizers
        ),
    }[composite]()
    attributor = Gradient(model=module, composite=made)
    attributor.__enter__()

    def score(output: Tensor) -> Tensor:
        weights = torch.zeros_like(output)
        weights[:, TARGET] = output[:, TARGET].detach()
        return weights

    return lambda: attributor(x.clone(), score)[1]


def captum(model: Model, x: Tensor, composite: str) -> Work:
    """Captum's LRP; it forgets the rules after every call, so that they are set anew.

    Its z⁺ rule leaves negative biases in the denominator, which may be zero then; so it gets none.
    """
    from captum.attr import LRP
    from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule

    if composite not in ("epsilon", "epsilon_plus"):
        raise NotImplementedError("Captum has no such rule for the first layer")
    module = _own(model)
    layers = [part for part in module.modules() if isinstance(part, (nn.Conv2d, nn.Linear))]

    def work() -> Tensor:
        for layer in layers:
            plus = composite == "epsilon_plus" and isinstance(layer, nn.Conv2d)
            layer.rule = Alpha1_Beta0_Rule(set_bias_to_zero=True) if plus else EpsilonRule(EPSILON)
        answer: Tensor = LRP(module).attribute(x.clone(), TARGET)
        return answer.detach()

    return work


def _own(model: Model) -> nn.Module:
    """A copy of the module whose activations do not work in place, which neither library bears."""
    module = copy.deepcopy(model.module)
    for part in module.modules():
        if getattr(part, "inplace", False):
            part.inplace = False
    return module


def _has_batch_norm(module: nn.Module) -> bool:
    return any(isinstance(part, nn.BatchNorm2d) for part in module.modules())
