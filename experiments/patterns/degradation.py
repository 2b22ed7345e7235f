"""Image degradation: how fast the answer falls as patches are replaced by the mean, the most relevant first."""

from typing import Any

import torch
from torch import Tensor

import whybox

INFILLS = {"mean": whybox.Mean(), "blur": whybox.Blur(4.0)}
METHODS: dict[str, whybox.Method] = {
    "PatternAttribution": whybox.PatternAttribution(),
    "PatternAttribution, linear": whybox.PatternAttribution("linear"),
    "PatternNet": whybox.PatternNet(),
    "PatternNet, linear": whybox.PatternNet("linear"),
    "LRP z⁺, flat": whybox.LRP("epsilon_plus_flat"),
    "DeepTaylor": whybox.DeepTaylor(),
    "InputXGradient": whybox.InputXGradient(),
    "IntegratedGradients": whybox.IntegratedGradients(steps=16),
    "GuidedBackprop": whybox.GuidedBackprop(),
    "Gradient": whybox.Gradient(),
    "random map": whybox.RandomMap(),
}


SIGNALS = ("Gradient", "GuidedBackprop", "PatternNet", "PatternNet, linear")
"""Their maps have no sum: what counts is the magnitude."""


def fits(model: whybox.Model, fitted_to: Tensor) -> dict[str, dict[str, Tensor]]:
    """What is learned by either estimator."""
    return {name: whybox.PatternNet(name).fit(model, fitted_to).state for name in ("relu", "linear")}


def measure(name: str, model: whybox.Model, states: dict[str, dict[str, Tensor]], pictures: Tensor) -> dict[str, Any]:
    """The AOPC of each picture and the mean curve, by infill; maps are summed over channels."""
    method = METHODS[name]
    if isinstance(method, (whybox.PatternNet, whybox.PatternAttribution)):
        method = whybox.Fitted(method, states[method.estimator])
    with torch.no_grad():
        target = torch.cat([model(part) for part in pictures.split(50)]).argmax(1)
    relevance = method(model, pictures, target)
    assert isinstance(relevance, Tensor)
    found = {}
    for what, infill in INFILLS.items():
        metric = whybox.RegionPerturbation(4, 20, 10, infill)
        scores = metric.run(model, pictures, target, relevance.abs() if name in SIGNALS else relevance)
        found[what] = {"aopc": scores.values.tolist(), "curve": scores.details["relative"].mean(0).tolist()}
    return found
