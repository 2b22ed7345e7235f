"""compare: the whole, on a model of which the truth is known."""

import dataclasses
import json
from typing import ClassVar

import pytest
import torch
from known_evidence import Known, planted

import whybox
from whybox import (
    Blur,
    Comparison,
    ComparisonInterrupted,
    Deletion,
    External,
    Insertion,
    Metric,
    RandomMap,
    RegionPerturbation,
    Taxonomy,
    UniformNoise,
    Zero,
    compare,
)
from whybox.core.errors import CheckpointError, InputError, ModelError, UnknownNameError
from whybox.evaluation import suite
from whybox.evaluation.suite import metrics_for, with_infills

QUICK = (Deletion(steps=8), Insertion(steps=8))


def noise(module, inputs, target):
    return torch.randn(inputs.shape, generator=torch.Generator().manual_seed(9), dtype=inputs.dtype)


NOISE = External(noise, "noise")


BOTH = (Known(), NOISE)


@dataclasses.dataclass(frozen=True)
class Refusing(whybox.Method):
    """Cannot explain anything."""

    error: str = "ModelError"

    taxonomy = Taxonomy(shows="features", needs="outputs", relation="proxy")

    def attribute(self, task):
        if self.error == "Interrupt":
            raise KeyboardInterrupt
        raise (ModelError if self.error == "ModelError" else RuntimeError)("this is no model for me")


def run(methods=BOTH, metrics=QUICK, count=16, case=None, **options):
    case = case or planted(count)
    return compare(case.model, (case.inputs, case.target), methods, metrics, **options)


@pytest.fixture(scope="module")
def found():
    return run()


def test_the_exact_method_wins_and_noise_loses(found):
    assert found.recommendation.startswith("For Sequential: known; it beats the controls on 4 of 4 (n = 16).")
    assert "Do not rely on noise: not shown to be better than the controls on anything." in found.recommendation
    assert found.names == ["known", "noise", "RandomMap", "CentreBlob", "EdgeDetector", "InputMagnitude"]
    assert found.controls == [2, 3, 4, 5]
    assert found.failures == ()
    assert found.complete


def test_the_scores_are_those_of_the_metric_itself(found):
    """The same as `metric(model, inputs, target, relevance)`, and the intervals are those of these scores."""
    case = planted(16)
    alone = Deletion(steps=8)(case.model, case.inputs, case.target, case.perfect)
    assert found.cells[0, 0].values == pytest.approx(alone.tolist(), abs=1e-12)
    assert found.interval(0, 0).mean == pytest.approx(float(alone.mean()))
    assert found.interval(0, 0).n == 16
    with_noise = Deletion(steps=8, infill=UniformNoise())(case.model, case.inputs, case.target, case.perfect)
    assert found.cells[0, 1].values == pytest.approx(with_noise.tolist(), abs=1e-12)


def test_a_difference_is_better_where_the_method_is(found):
    """Deletion is better where it is lower: the difference is turned around, pair by pair."""
    known, other = (torch.tensor(found.cells[row, 0].values) for row in (0, 1))
    assert found.difference(0, 1, 0).mean == pytest.approx(float((other - known).mean()))
    assert found.difference(1, 0, 0).mean == -found.difference(0, 1, 0).mean
    inserted = [torch.tensor(found.cells[row, 2].values) for row in (0, 1)]
    assert found.difference(0, 1, 2).mean == pytest.approx(float((inserted[0] - inserted[1]).mean()))


def test_the_model_is_asked_no_more_than_it_must_be(found):
    """Once for the originals; for each of 6 methods and controls 8 steps of 2 metrics with 2 infills. None explains
    with a forward pass."""
    assert found.forwards == 16 * (1 + 6 * 8 * 2 * 2)
    assert found.backwards == 0
    assert sum(cell.forwards for cell in found.cells.values()) == found.forwards - 16


def test_what_is_shared_costs_nothing():
    """Deletion of the score reads the curve that Deletion of the probability has measured."""
    shared = run(metrics=(Deletion(steps=8), Deletion(steps=8, follows="score")), infills=(), controls=False)
    assert shared.forwards == 16 * (1 + 2 * 8)
    assert [shared.cells[0, column].forwards for column in (0, 1)] == [16 * 8, 0]
    assert len(set(shared.metrics)) == 2


def test_what_explaining_costs_is_counted():
    one = run(["gradient"], metrics=("deletion(steps=2)",), controls=False, infills=())
    assert (one.explained[0].forwards, one.explained[0].backwards) == (16, 16)
    assert (one.forwards, one.backwards) == (16 * (1 + 1 + 2), 16)


def test_methods_as_values_names_and_text():
    case = planted(6)
    methods = ["gradient", "smooth_grad(samples=2)", whybox.InputXGradient(), "gradient", NOISE]
    found = run(methods, metrics=["deletion(steps=2)"], case=case, controls=False)
    assert found.names == ["Gradient", "SmoothGrad of Gradient", "InputXGradient", "noise"]


def test_methods_of_one_name_are_told_apart():
    other = External(lambda module, x, y: -x, "noise")
    found = run(["smooth_grad(samples=2)", "smooth_grad(samples=3)", NOISE, other], metrics=["deletion(steps=2)"])
    assert len(set(found.names)) == len(found.names)
    assert any("samples=3" in name for name in found.names)


def test_a_control_that_is_asked_for_is_a_control_still():
    found = run([Known(), RandomMap()], metrics=["deletion(steps=2)"])
    assert found.names.count("RandomMap") == 1
    assert found.explained[found.names.index("RandomMap")].control


def test_a_method_that_fails_does_not_lose_the_others():
    found = run([Refusing(), Known(), Refusing(error="RuntimeError")])
    assert [failure.message for failure in found.failures] == [
        "this is no model for me",
        "RuntimeError: this is no model for me",
    ]
    assert found.names[0] == "known"
    assert "known; it beats the controls on 4 of 4" in found.recommendation
    assert "refusing could not be scored: this is no model for me" in " ".join(str(found).split())


def test_where_every_method_fails_the_first_error_is_raised():
    with pytest.raises(ModelError, match="no model for me"):
        run([Refusing(), Refusing(error="RuntimeError")])


@dataclasses.dataclass(frozen=True)
class Picky(Metric):
    """Scores no map with values below zero."""

    family: ClassVar = "complexity"
    higher_is_better = True

    def measure(self, case):
        if bool((case.relevance < 0).any()):
            raise InputError("there are values below zero")
        return torch.full((case.task.size,), torch.nan)


def test_a_metric_that_fails_for_one_method_is_kept_for_the_others():
    found = run(metrics=(Deletion(steps=2), Picky()), infills=())
    failed = {failure.method["name"]: failure.message for failure in found.failures}
    assert failed == {"noise": "there are values below zero", "random_map": "there are values below zero"}
    assert (1, 1) not in found.cells
    assert found.cells[0, 1].skipped == {"no finite score": tuple(range(16))}
    assert found.interval(0, 1).n == 0
    assert "known, CentreBlob, EdgeDetector, InputMagnitude: no finite score for 16 of 16 samples (picky)." in " ".join(
        str(found).split()
    )


def test_what_the_model_gets_wrong_is_counted():
    case = planted(16)
    target = case.target.clone()
    target[[2, 3, 11]] = 0
    found = compare(case.model, (case.inputs, target), [Known()], QUICK)
    assert found.wrong == (2, 3, 11)
    assert "For 3 of 16 samples the model predicts another class than is explained." in str(found).replace("\n", " ")
    assert run([Known()]).wrong == ()


def test_maps_without_a_score_are_counted():
    def broken(module, x, y):
        relevance = torch.arange(x.numel(), dtype=x.dtype).view_as(x)
        relevance[3] = torch.nan
        relevance[4:6] = 1.0
        return relevance

    found = run([External(broken, "broken")], count=12)
    cell = found.cells[0, 0]
    assert cell.skipped == {"relevance that is not finite": (3,), "the same relevance everywhere": (4, 5)}
    assert found.interval(0, 0).n == 11
    said = " ".join(str(found).split())
    assert "broken: relevance that is not finite for 1 of 12 samples." in said
    assert "broken: the same relevance everywhere for 2 of 12 samples." in said


def test_samples_are_drawn_at_random_and_all_goes_with_them():
    case = planted(30)
    seen = []

    def see(module, x, y):
        seen.append((x, y))
        return x

    target = torch.arange(30) % 2
    found = compare(case.model, (case.inputs, target), [External(see, "see")], QUICK, n=10, seed=3, controls=False)
    rows = list(found.samples)
    assert rows == sorted(set(rows))
    assert len(rows) == 10
    assert rows != list(range(10))
    assert torch.equal(seen[0][0], case.inputs[rows])
    assert seen[0][1].tolist() == [row % 2 for row in rows]
    again = compare(case.model, (case.inputs, target), [Known()], QUICK, n=10, seed=3, controls=False)
    assert again.samples == found.samples
    other = compare(case.model, (case.inputs, target), [Known()], QUICK, n=10, seed=4, controls=False)
    assert other.samples != found.samples
    assert run([Known()], n=None, controls=False).samples == tuple(range(16))


def test_the_target_may_be_the_class_predicted_one_class_or_a_target():
    case = planted(8)
    by_target = [
        compare(case.model, (case.inputs, target), [Known()], QUICK, n=6)
        for target in (None, 1, case.target, case.target.tolist(), whybox.Logit(case.target))
    ]
    assert len({one.cells[0, 0].values for one in by_target}) == 1
    score = compare(case.model, (case.inputs, lambda output: output[:, 1]), ["gradient"], ["deletion(follows='score')"])
    assert score.wrong == ()
    assert not score.failures


@dataclasses.dataclass(frozen=True)
class Inside(Metric):
    """The share of the relevance inside the truth."""

    family: ClassVar = "localisation"
    higher_is_better = True
    needs_truth = True

    def measure(self, case):
        size = case.relevance.abs()
        return (size * case.truth).flatten(1).sum(1) / size.flatten(1).sum(1)


def test_the_truth_goes_with_the_samples():
    case = planted(20)
    truth = case.truth.clone()
    truth[1::2] = ~truth[1::2]
    found = compare(case.model, (case.inputs, case.target), [Known()], [Inside()], n=12, truth=truth, controls=False)
    assert found.cells[0, 0].values == tuple(float(row % 2 == 0) for row in found.samples)
    with pytest.raises(InputError, match="give truth="):
        run(metrics=[Inside()])
    with pytest.raises(InputError, match="truth has 3 rows for 16"):
        run(metrics=[Inside()], truth=case.truth[:3])


def test_metrics_that_explain_again_are_given_the_method():
    @dataclasses.dataclass(frozen=True)
    class Again(Metric):
        """Nothing but the method's own answer once more."""

        family: ClassVar = "robustness"
        higher_is_better = True
        explains_again = True

        def measure(self, case):
            again = case.explain(case.task.inputs, case.task.everything())
            return (again == case.relevance).double().flatten(1).mean(1)

    found = run(metrics=[Again()], infills=())
    known, control = found.cells[0, 0], found.cells[found.names.index("CentreBlob"), 0]
    assert set(known.values) == set(control.values) == {1.0}


def test_interrupted_what_was_measured_is_kept():
    with pytest.raises(ComparisonInterrupted) as caught:
        run([Known(), Refusing(error="Interrupt"), NOISE])
    found = caught.value.comparison
    assert found.names == ["known"]
    assert sorted(found.cells) == [(0, column) for column in range(4)]
    assert not found.complete
    assert "Interrupted" in str(found)
    assert caught.value.__notes__ == ["4 of 28 scores were measured"]
    assert isinstance(caught.value, KeyboardInterrupt)


def test_the_same_seed_gives_the_same_whatever_the_chunk_size(found):
    again = run(case=planted(16, chunk=5))
    for place, cell in found.cells.items():
        assert again.cells[place].values == pytest.approx(cell.values, abs=1e-9)
    assert again.recommendation == found.recommendation


def test_json_holds_all_of_it(found, tmp_path):
    found.save(tmp_path / "x.json")
    again = Comparison.load(tmp_path / "x.json")
    assert again == found
    assert again.recommendation == found.recommendation
    assert again.table == found.table
    record = json.loads((tmp_path / "x.json").read_text())
    assert record["recommendation"] == found.recommendation
    [row] = [
        one
        for one in record["results"]
        if (one["method"], one["metric"], one["infill"]) == ("known", "Deletion", "Zero")
    ]
    assert row["against_controls"] == "beats"
    assert row["low"] < row["mean"] < row["high"]
    assert row["n"] == 16


def test_json_holds_what_is_missing_too(tmp_path):
    def broken(module, x, y):
        return torch.full_like(x, torch.nan)

    found = run([Known(), External(broken, "broken"), Refusing()], n=7)
    found.save(tmp_path / "x.json")
    assert "NaN" not in (tmp_path / "x.json").read_text()
    again = Comparison.load(tmp_path / "x.json")
    assert again.failures == found.failures
    assert again.cells[1, 0].skipped == found.cells[1, 0].skipped
    assert again.interval(1, 0).n == 0
    assert str(again) == str(found)


def test_a_file_that_is_no_comparison_is_refused(tmp_path):
    for text in ("", "{}", '{"format": 1}', "[1, 2]", '{"format": 99}'):
        (tmp_path / "x.json").write_text(text)
        with pytest.raises(CheckpointError):
            Comparison.load(tmp_path / "x.json")
    with pytest.raises(CheckpointError):
        Comparison.load(tmp_path / "none.json")


def test_a_file_of_another_kind_is_not_written(found, tmp_path):
    with pytest.raises(InputError, match=r"\.json or \.html"):
        found.save(tmp_path / "x.csv")


def test_what_is_asked_wrongly_is_refused_before_any_work():
    case = planted(4)
    data = (case.inputs, case.target)
    for options, message in (
        ({"methods": []}, "no method to compare"),
        ({"metrics": []}, "no metric to compare by"),
        ({"methods": iter([noise])}, "whybox.External"),
        ({"metrics": iter([3])}, "whybox.Metric or its name"),
        ({"n": 0}, "at least 1"),
    ):
        with pytest.raises(InputError, match=message):
            compare(case.model, data, **options)
    with pytest.raises(InputError, match="a pair"):
        compare(case.model, case.inputs)
    with pytest.raises(InputError, match="3 rows for 4"):
        compare(case.model, (case.inputs, case.target[:3]))
    for options in ({"methods": ["gradiant"]}, {"metrics": ["deletoin"]}):
        with pytest.raises(UnknownNameError):
            compare(case.model, data, **options)


def test_the_suite_replaces_the_share_of_the_picture_that_the_paper_does():
    pictures = {edge: metrics_for(torch.zeros(1, 3, edge, edge), truth=False)[0] for edge in (224, 32, 8)}
    assert pictures[224] == RegionPerturbation()
    assert (pictures[32].size, pictures[32].steps) == (2, 41)
    assert (pictures[8].size, pictures[8].steps) == (1, 10)


def test_metrics_of_the_suite_that_need_the_truth_wait_for_it(monkeypatch):
    monkeypatch.setattr(suite, "METRICS", ("deletion", "inside"))
    monkeypatch.setattr(suite.registry, "metric", {"deletion": Deletion(), "inside": Inside()}.get)
    assert metrics_for(torch.zeros(1, 1, 8, 8), truth=False) == [Deletion()]
    assert metrics_for(torch.zeros(1, 1, 8, 8), truth=True) == [Deletion(), Inside()]


def test_two_infills_by_default():
    assert [one.infill for one in with_infills(Deletion(), None, torch.zeros(1, 1, 8, 8))] == [Zero(), UniformNoise()]
    assert [one.infill for one in with_infills(RegionPerturbation(), None, torch.zeros(1, 1, 8, 8))] == [
        UniformNoise(),
        Zero(),
    ]
    assert [one.infill for one in with_infills(Deletion(), (Blur(1.0),), torch.zeros(1, 1, 8, 8))] == [Blur(1.0)]
    assert with_infills(Deletion(), (), torch.zeros(1, 1, 8, 8)) == [Deletion()]
    assert with_infills(Picky(), None, torch.zeros(1, 1, 8, 8)) == [Picky()]


def test_the_figure_draws_every_criterion(found):
    figure = found.plot()
    drawn = [ax for ax in figure.axes if ax.get_visible()]
    assert [ax.get_title() for ax in drawn] == [
        f"{metric}\nwith {infill}" for metric in ("Deletion", "Insertion") for infill in ("Zero", "UniformNoise")
    ]
    assert [label.get_text() for label in drawn[0].get_yticklabels()] == [found.names[row] for row in found.order]
    known = next(line for line in drawn[0].lines if len(line.get_xdata()) == 2)
    assert list(known.get_xdata()) == pytest.approx([found.interval(0, 0).low, found.interval(0, 0).high])


def test_the_suite_is_registered():
    assert {metric.partition("(")[0] for metric in suite.METRICS} <= set(whybox.metrics())
    assert set(suite.METHODS) <= set(whybox.methods())


def test_a_method_that_ignores_the_weights_is_not_to_be_relied_on():
    """Guided backpropagation keeps its map when the weights are destroyed (Adebayo et al. 2018), the gradient not."""
    data, model = whybox.datasets.load("digits"), whybox.models.load("digits")
    found = compare(model, data, ["guided_backprop", "gradient"], ["mprt", "deletion(steps=8)"], n=12, controls=False)
    assert "Do not rely on GuidedBackprop: it ignores the weights (MPRT 0." in found.recommendation
    assert "Gradient: it ignores" not in found.recommendation
    strengths = compare(model, data, ["guided_backprop"], ["mprt(compares='absolute')"], n=12, controls=False)
    assert strengths.criteria[0].limit is None


def test_the_suite_suits_tables_and_tokens():
    """Every metric of it can score them; what needs pictures or neighbours of integers is left out."""
    for x in (torch.rand(8, 6), torch.arange(40).view(8, 5)):
        found = {type(metric).__name__ for metric in metrics_for(x, truth=False)}
        assert {"Deletion", "Insertion", "Infidelity", "Sparseness", "MPRT", "Completeness"} <= found
        assert not {"RegionPerturbation", "Mosaic"} & found
        assert ("MaxSensitivity" in found) == x.is_floating_point()
    net = torch.nn.Sequential(torch.nn.Linear(6, 3))
    comparison = whybox.compare(net, (torch.rand(8, 6), 1), methods=["input_x_gradient"])
    assert comparison.failures == ()
