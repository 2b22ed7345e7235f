"""The lights of the trust panel: what is ruled out, what is doubtful, what stands."""

from dataclasses import replace

import torch
from torch import Tensor

import whybox
from report_cases import model, pictures
from whybox import Check, Explanation
from whybox.evaluation.trials import RANDOM, Trial
from whybox.report.lights import light

GOOD = Check("completeness gap", torch.tensor([0.0]), 0.1, "Measured.")


def explanation(*checks: Check) -> Explanation:
    return replace(whybox.explain(model(), pictures(1), "gradient", checks=False), checks=checks)


def trial(score: float, random: float = 0.1, blob: float = 0.2, infill: str = "Zero", telling: bool = True) -> Trial:
    def one(value: float) -> Tensor:
        return torch.tensor([value])

    config = {"name": "region_perturbation", "infill": {"name": infill}}
    return Trial(config, (one(score),), {RANDOM: one(random), "CentreBlob": one(blob)}, torch.tensor([telling]))


def verdict(checks: tuple[Check, ...], *trials: Trial) -> tuple[str, str]:
    found = light(explanation(*checks), 0, trials, "Gradient", 0)
    return found.verdict, found.reason


def test_a_map_that_ignores_the_weights_is_ruled_out() -> None:
    shuffled = Check("likeness to the map of random weights", torch.tensor([0.9]), 0.5, "Measured.")
    assert verdict((GOOD, shuffled), trial(1.0)) == (
        "fail",
        "it hardly changes when the model's weights are shuffled, so it does not show what the model has learned",
    )


def test_a_map_no_better_than_chance_with_any_infill_is_ruled_out() -> None:
    found, reason = verdict((GOOD,), trial(0.0), trial(-0.1, infill="UniformNoise"))
    assert found == "fail"
    assert "whatever replaces it" in reason


def test_a_blank_map_is_ruled_out() -> None:
    assert verdict((Check("blank map", torch.tensor([1.0]), 0.5, "Measured."),)) == (
        "fail",
        "it is the same everywhere",
    )


def test_infills_that_disagree_leave_a_doubt() -> None:
    found, reason = verdict((GOOD,), trial(-0.1), trial(0.9, infill="UniformNoise"))
    assert (found, reason) == ("doubt", "with Zero it does no better than chance")


def test_a_control_that_does_as_well_leaves_a_doubt() -> None:
    found, reason = verdict((GOOD,), trial(0.15))
    assert (found, reason) == ("doubt", "CentreBlob does as well with Zero")
    assert verdict((GOOD,), trial(0.05))[1] == f"{RANDOM} and CentreBlob do as well with Zero"


def test_a_control_is_named_with_the_infill_it_does_as_well_with() -> None:
    reason = verdict((GOOD,), trial(0.15), trial(0.15, 0.3, 0.1, infill="UniformNoise"))[1]
    assert reason == f"CentreBlob does as well with Zero; {RANDOM} does as well with UniformNoise"
    same = verdict((GOOD,), trial(0.15), trial(0.15, infill="UniformNoise"))[1]
    assert same == "CentreBlob does as well with Zero and UniformNoise"


def test_a_check_that_fails_leaves_a_doubt() -> None:
    gap = replace(GOOD, values=torch.tensor([0.5]))
    assert verdict((gap,), trial(0.9)) == ("doubt", "it fails the check of completeness gap")


def test_what_stands_says_what_it_has_stood() -> None:
    found = verdict((GOOD,), trial(0.9), trial(0.9, infill="UniformNoise"))
    assert found == ("pass", "it passes 1 check and beats all 2 controls with Zero and UniformNoise")


def test_what_was_not_measured_is_not_passed() -> None:
    unmeasured = replace(GOOD, values=torch.tensor([torch.nan]))
    assert verdict((unmeasured,)) == ("none", "nothing could be measured")
    assert verdict((), trial(torch.nan)) == ("none", "nothing could be measured")


def test_a_prediction_that_nothing_shakes_tells_nothing() -> None:
    assert verdict((), trial(0.0, telling=False)) == ("none", "nothing could be measured")
    assert verdict((GOOD,), trial(0.0, telling=False)) == ("pass", "it passes 1 check")
