"""What every metric must do, whatever it measures: the table of the registry generates the tests."""

import dataclasses
import importlib
import json
import pickle
import pkgutil

import pytest
import torch
from known_evidence import Known, colours, planted

import whybox
from whybox import Metric, RandomMap
from whybox.core import names, registry
from whybox.core.card import card
from whybox.core.errors import InputError

# Where the default is made for larger pictures than the planted ones, or takes long.
SETTINGS = {
    "sensitivity_n": "sensitivity_n(draws=20)",
    "monotonicity_correlation": "monotonicity_correlation(draws=3)",
    "region_perturbation": "region_perturbation(size=2, steps=36)",
    "irof": "irof(regions=Patches(size=2))",
    "pointing_game": "pointing_game(tolerance=1.0)",
    "smooth_mprt": "smooth_mprt(samples=4)",
    "efficient_mprt": "efficient_mprt(weights='initial')",  # the planted weights are sparse, and so are shuffled ones
}
# Metrics that a right map need not win, and why.
LESS = "the planted model is never surer of a picture of which it sees less"
NO_CONTEST = {
    "token_deletion": "takes away whole channels of a picture, of which both hold evidence",
    "average_increase": LESS,
    "average_gain": LESS,
    "mprt": "a random map drawn anew differs from the one before, as the map of random weights should",
    "random_logit": "the perfect map is told which class to explain, and stays the same",
    "input_invariance": "a map that does not look at the input does not depend on its zero, the exact one here does",
}
# Where the planted square is no question for the metric, another case: of evidence for each of four classes.
CASES = {"mosaic": colours, "random_logit": colours}

METRICS = {name: whybox.metric(SETTINGS.get(name, name)) for name in whybox.metrics()}
every_metric = pytest.mark.parametrize("name", METRICS)


def case_for(name, *args):
    return CASES.get(name, planted)(*args)


def scores(name, relevance=None, method=None, case=None, **options):
    case = case or case_for(name)
    metric = METRICS[name]
    if metric.explains_again:
        options["method"] = method or Known()
    if metric.needs_truth:
        options["truth"] = case.truth
    return metric.run(case.model, case.inputs, case.target, case.perfect if relevance is None else relevance, **options)


def test_the_table_is_the_tree():
    for module in pkgutil.walk_packages(whybox.evaluation.__path__, "whybox.evaluation."):
        importlib.import_module(module.name)
    found, open_classes = {}, [Metric]
    while open_classes:
        cls = open_classes.pop()
        open_classes += cls.__subclasses__()
        if cls.__module__.startswith("whybox.") and not cls.__subclasses__():
            found[f"{cls.__module__}:{cls.__name__}"] = cls
    assert set(found) == set(names.METRICS.values())
    for name, place in names.METRICS.items():
        cls = found[place]
        assert registry.name_of(cls) == name
        assert getattr(whybox, cls.__name__) is cls


@every_metric
def test_it_is_a_value(name):
    metric = METRICS[name]
    assert whybox.metric(**json.loads(json.dumps(metric.config()))) == metric
    assert pickle.loads(pickle.dumps(metric)) == metric
    assert hash(metric) == hash(whybox.metric(**metric.config()))


@every_metric
def test_its_docstring_says_all(name):
    cls = type(METRICS[name])
    about = card(cls)
    assert about.summary.endswith((".", ":"))
    assert about.cost.endswith(".")
    assert about.limits.endswith(".")
    assert about.source.endswith((".", "-"))
    assert set(about.fields) == {field.name for field in dataclasses.fields(cls)}
    assert cls.family in ("faithfulness", "robustness", "localisation", "complexity", "randomisation", "axioms")


@pytest.mark.parametrize("name", [name for name in METRICS if name not in NO_CONTEST])
def test_a_right_map_beats_a_random_one(name):
    case = case_for(name, 8)
    right = scores(name, case=case).values
    random = RandomMap()(case.model, case.inputs, case.target, seed=5)
    wrong = scores(name, random, RandomMap(), case).values
    better = right > wrong if METRICS[name].higher_is_better else right < wrong
    assert better.double().mean() >= 0.75


@every_metric
def test_the_chunk_size_plays_no_part(name):
    one, many = (scores(name, case=case_for(name, 4, chunk)).values for chunk in (1, 7))
    assert torch.allclose(one, many, atol=1e-9, equal_nan=True)
    assert one.shape == (4,)
    assert one.dtype == torch.float64


@every_metric
def test_the_same_seed_gives_the_same_scores(name):
    """Bit for bit, at a fixed chunk size: a measured one may differ from run to run."""
    one, other = (scores(name, case=case_for(name, 4, 3), seed=3).values for _ in range(2))
    assert torch.equal(one, other)


@every_metric
def test_nothing_of_the_callers_is_changed(name):
    case = case_for(name)
    before = [tensor.clone() for tensor in (case.inputs, case.target, case.perfect, case.truth)]
    weights = {key: value.clone() for key, value in case.model.module.state_dict().items()}
    scores(name, case=case)
    after = (case.inputs, case.target, case.perfect, case.truth)
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True))
    assert all(torch.equal(weights[key], value) for key, value in case.model.module.state_dict().items())


@every_metric
def test_one_channel_serves_for_all(name):
    """A map that does not tell the channels apart is scored like any other."""
    found = scores(name, case_for(name).perfect.sum(1, keepdim=True))
    assert torch.isfinite(found.values).all()


@every_metric
def test_nothing_is_dropped_in_silence(name):
    """A map with NaN has no score, a constant one is named, and the others are scored as if they were alone."""
    case = case_for(name)
    broken = case.perfect.clone()
    broken[1] = torch.nan
    broken[2] = 0.5
    found, whole = scores(name, broken, case=case), scores(name, case=case)
    assert found.skipped["relevance that is not finite"].tolist() == [False, True, False, False]
    assert found.skipped["the same relevance everywhere"].tolist() == [False, False, True, False]
    assert torch.isnan(found.values[1])
    assert torch.allclose(found.values[[0, 3]], whole.values[[0, 3]], atol=1e-9)


@every_metric
def test_what_does_not_fit_is_refused(name):
    case = case_for(name)
    with pytest.raises(InputError, match="inputs' rank"):
        scores(name, case.perfect[:, 0], case=case)
    with pytest.raises(InputError, match="inputs' rank"):
        scores(name, case.perfect[:2], case=case)
    metric, given = METRICS[name], (case.model, case.inputs, case.target, case.perfect)
    if metric.explains_again:
        with pytest.raises(InputError, match="method="):
            metric(*given, truth=case.truth)
    if metric.needs_truth:
        with pytest.raises(InputError, match="truth="):
            metric(*given, method=Known())
        with pytest.raises(InputError, match="one for each"):
            metric(*given, method=Known(), truth=case.truth[:2])
