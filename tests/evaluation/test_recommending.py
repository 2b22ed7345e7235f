"""What is made of scores: standings, disagreements and words, on comparisons made by hand."""

import dataclasses

import pytest
from compared import compared

from whybox.evaluation.standing import against_controls, disagreements, standings


def first(comparison):
    return comparison.recommendation.splitlines()[0]


def lights(comparison):
    return {comparison.names[one.row]: one.light for one in standings(comparison)}


CONTROL = {("random_map", "a"): 0.5, ("random_map", "b"): 0.5, ("random_map", "c"): 0.5}


def of(name, a, b, c):
    return {(name, "a"): a, (name, "b"): b, (name, "c"): c}


def test_the_method_that_beats_the_controls_is_recommended():
    found = compared({**of("gradient", 0.5, 0.6, 0.5), **of("lrp", 0.7, 0.8, 0.5), **CONTROL})
    assert first(found) == "For net: LRP; it beats the controls on 2 of 3 (n = 20)."
    assert "Next: Gradient; it beats the controls on 1 of 3; it is worse than LRP on 2 and better on 0." in str(
        found.recommendation
    )
    assert lights(found) == {"LRP": "pass", "Gradient": "open"}
    assert found.order == [1, 0, 2]


def test_where_lower_is_better():
    scores = {**of("gradient", 0.5, 0.6, 0.5), **of("lrp", 0.3, 0.2, 0.4), **CONTROL}
    found = compared(scores, higher=False)
    assert first(found).startswith("For net: LRP; it beats the controls on 3 of 3")
    assert against_controls(found, 0, 1) == "behind"
    assert against_controls(found, 0, 0) == "open"
    assert against_controls(found, 2, 0) is None


def test_nothing_is_recommended_where_nothing_beats_the_controls():
    found = compared({**of("gradient", 0.5, 0.4, 0.5), **of("lrp", 0.5, 0.5, 0.5), **CONTROL})
    assert "none. No method beats the controls on any of 3 measurements (n = 20)" in first(found)
    assert lights(found) == {"LRP": "fail", "Gradient": "fail"}


def test_a_method_that_is_behind_as_often_as_ahead_does_not_convince():
    found = compared({**of("lrp", 0.9, 0.1, 0.5), **CONTROL})
    assert first(found) == (
        "For net: none convinces. LRP comes nearest; it beats the controls on 1 of 3, and is behind one of them on 1 "
        "(n = 20)."
    )


def test_a_single_win_is_a_reservation():
    found = compared({**of("lrp", 0.9, 0.5, 0.5), **CONTROL})
    assert first(found) == "For net: LRP, with reservations; it beats the controls on 1 of 3 only (n = 20)."


def test_every_control_must_be_beaten(monkeypatch):
    monkeypatch.setattr("compared.CONTROLS", ("random_map", "edge_detector"))
    found = compared({**of("lrp", 0.7, 0.7, 0.7), **CONTROL, **of("edge_detector", 0.9, 0.7, 0.1)})
    assert [against_controls(found, 0, column) for column in range(3)] == ["behind", "open", "beats"]


def test_beyond_a_limit_is_not_to_be_relied_on_however_faithful():
    families = {"m": "randomisation"}
    scores = {**of("guided_backprop", 0.9, 0.9, 0.9), **of("lrp", 0.7, 0.7, 0.7), **CONTROL}
    scores |= {("guided_backprop", "m"): 0.8, ("lrp", "m"): 0.2, ("random_map", "m"): 0.0}
    found = compared(scores, families, limit=(0.5, "it ignores the weights"))
    found = dataclasses.replace(
        found,
        criteria=tuple(
            dataclasses.replace(one, higher_is_better=one.family != "randomisation") for one in found.criteria
        ),
    )
    assert first(found) == "For net: LRP; it beats the controls on 3 of 3 (n = 20)."
    assert "Do not rely on GuidedBackprop: it ignores the weights (m 0.8, above 0.5)." in found.recommendation
    assert lights(found) == {"LRP": "pass", "GuidedBackprop": "fail"}
    assert "✕" in str(found)


def test_robustness_is_no_contest_with_maps_that_never_change():
    scores = {**of("lrp", 0.7, 0.7, 0.7), **CONTROL, ("lrp", "r"): 0.1, ("random_map", "r"): 0.9}
    found = compared(scores, {"r": "robustness"})
    assert first(found) == "For net: LRP; it beats the controls on 3 of 3 (n = 20)."
    assert against_controls(found, 0, 3) is None


def test_without_controls_nothing_is_promised():
    found = compared(of("lrp", 0.7, 0.7, 0.7))
    assert "LRP comes first, but whether it means anything is not known" in first(found)
    assert lights(found) == {"LRP": "open"}


def test_few_samples_prove_nothing():
    found = compared({**of("lrp", 0.9, 0.9, 0.9), **CONTROL}, n=5)
    assert "nothing to recommend, for 5 samples tell no method from chance" in first(found)
    assert against_controls(found, 0, 0) == "open"


def test_without_a_metric_of_faithfulness_there_is_no_recommendation():
    found = compared({("lrp", "r"): 0.1, ("random_map", "r"): 0.9}, {"r": "robustness"})
    assert "nothing to recommend" in first(found)


def test_infills_that_reverse_the_order_are_named():
    """LRP is ahead of Gradient with one infill and behind it with the other; GradCAM keeps its place."""
    with_zero = {("lrp", "d/Zero"): 0.9, ("gradient", "d/Zero"): 0.3, ("grad_cam", "d/Zero"): 0.2}
    with_blur = {("lrp", "d/Blur"): 0.4, ("gradient", "d/Blur"): 0.8, ("grad_cam", "d/Blur"): 0.2}
    found = compared({**with_zero, **with_blur, ("random_map", "d/Zero"): 0.1, ("random_map", "d/Blur"): 0.1})
    [one] = disagreements(found)
    assert one.reversed == ((0, 1),)
    assert one.correlation == pytest.approx(0.8)  # ranks 4 3 2 1 and 3 4 2 1: 1 − 6·2/(4·15)
    assert "With Zero LRP is better than Gradient; with Blur it is the other way round." in found.recommendation


def test_infills_that_agree_say_so():
    scores = {("lrp", "d/Zero"): 0.9, ("gradient", "d/Zero"): 0.3, ("lrp", "d/Blur"): 0.5, ("gradient", "d/Blur"): 0.3}
    [one] = disagreements(compared(scores))
    assert one.reversed == ()
    assert one.correlation == pytest.approx(1)


def test_different_metrics_are_no_infills_of_one():
    assert disagreements(compared({("lrp", "a/Zero"): 0.9, ("lrp", "b/Zero"): 0.1})) == []


@pytest.mark.parametrize("wide", [60, 80, 120])
def test_the_text_fits_the_terminal(wide, monkeypatch):
    monkeypatch.setenv("COLUMNS", str(wide))
    scores = {(m, f"{c}/UniformNoise"): 0.5 for m in ("lrp", "gradient", "random_map") for c in "abcdefg"}
    text = str(compared(scores))
    assert max(map(len, text.splitlines())) <= wide
    assert all(f"↑ {c}" in text for c in "abcdefg")
    assert "n = 20" in text
