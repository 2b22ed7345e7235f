"""Explanation and Fitted: records that survive being saved, and nothing else that lies in a file."""

import dataclasses
import json
import math
import pickle

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import whybox
from whybox import Check, Domain, ExpectedGradients, Explanation, Fitted, Model, SmoothGrad, explain
from whybox.core.configs import config_text
from whybox.core.errors import CheckpointError, InputError, UnknownNameError


def record(**changes):
    fields = {
        "relevance": torch.randn(3, 1, 4, 4),
        "inputs": torch.randn(3, 2, 4, 4).transpose(2, 3),  # not contiguous
        "method": SmoothGrad(samples=3).config(),
        "target": ("the score of 'ä' (0)", "b", "c"),
        "scores": torch.tensor([1.0, -0.0, math.nan]),
        "outputs": torch.tensor([[1.0, 3, 2, 0], [0, 0, 0, 1], [5, 5, 9, 5]], dtype=torch.float64),
        "model": "net <b>",
        "domains": (Domain((0.0, -1.0), (1.0, 1.0), "preprocessing"),),
        "labels": ("ä", "b", "c"),
        "checks": (Check("gap", torch.tensor([0.0, math.inf, math.nan]), 0.5, "says"),),
        "details": {
            "steps": torch.arange(3),
            "layers": ("a", "b"),
            "of": {"k": torch.ones(3, 2, dtype=torch.bfloat16), "check": Check("c", torch.zeros(3), math.inf, "x")},
            "pair": (torch.zeros(3), [1, "two", None]),
            "whole": torch.tensor(7),
            "table": torch.zeros(5),
        },
        "seconds": 0.25,
        "forwards": 3,
        "backwards": 2,
        "seed": 5,
        "at": "layer",
    }
    return Explanation(**{**fields, **changes})


def same(a, b):
    """Equal in every bit and every type."""
    if isinstance(a, torch.Tensor):
        raw = [x.contiguous().reshape(-1).view(torch.uint8) for x in (a, b)]
        return a.dtype == b.dtype and a.shape == b.shape and torch.equal(*raw)
    if dataclasses.is_dataclass(a):
        return type(a) is type(b) and all(same(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, (tuple, list)):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"labels": None, "at": None, "checks": (), "details": {}},
        {
            "relevance": (torch.randn(3, 2), torch.randn(3)),
            "inputs": (torch.randn(3, 2), torch.arange(3)),
            "domains": (Domain((0.0,), (1.0,)),) * 2,
        },
    ],
    ids=["full", "empty", "several inputs"],
)
def test_saved_and_loaded_it_is_the_same_bit_for_bit(tmp_path, changes):
    before = record(**changes)
    before.save(tmp_path / "x.safetensors")
    after = Explanation.load(tmp_path / "x.safetensors")
    assert same(before, after)
    assert not same(before, record(**changes, seed=6))
    assert repr(before) == repr(after)


def test_a_real_one_survives(tmp_path):
    torch.manual_seed(0)
    x = torch.randn(2, 1, 6, 6)
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    for method in ("integrated_gradients", "grad_cam", SmoothGrad(samples=2)):
        before = explain(net, x, method)
        before.save(tmp_path / "x")
        assert same(before, Explanation.load(tmp_path / "x"))
        assert whybox.method(**Explanation.load(tmp_path / "x").method) == (
            whybox.method(method) if isinstance(method, str) else method
        )


@pytest.mark.parametrize("what", ["explanation", "fitted"])
@pytest.mark.parametrize(
    "damage",
    [
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(path.read_bytes()[:-8]),
        lambda path: path.write_bytes(path.read_bytes()[:20]),
        lambda path: path.write_bytes(b"\xff" * 64 + path.read_bytes()),
        lambda path: path.write_bytes(pickle.dumps({"a": 1})),
        lambda path: path.unlink(),
        lambda path: save_file({"a": torch.zeros(1)}, str(path)),
        lambda path: save_file({}, str(path), {"whybox": "{"}),
        lambda path: save_file({}, str(path), {"whybox": "[1]"}),
        lambda path: save_file({}, str(path), {"whybox": "null"}),
        lambda path: save_file({}, str(path), {"whybox": json.dumps({"format": 1})}),
        lambda path: save_file({}, str(path), {"whybox": json.dumps({"format": 1, "relevance": {"$tensor": "a"}})}),
        lambda path: save_file({}, str(path), {"whybox": json.dumps({"format": 1, "a": {"$value": "os.system"}})}),
        lambda path: save_file({}, str(path), {"whybox": json.dumps({"format": 1, "name": "gradient", "a": 1})}),
    ],
    ids=["empty", "cut", "short", "prefixed", "pickle", "absent", "other", "no json", "list", "null", "no fields",
         "no tensor", "unknown value", "unknown field"],
)  # fmt: skip
def test_a_damaged_file_is_refused(tmp_path, what, damage):
    path = tmp_path / "x.safetensors"
    kind = {"explanation": Explanation, "fitted": Fitted}[what]
    (record() if what == "explanation" else Fitted(ExpectedGradients(), {"baselines": torch.ones(2, 3)})).save(path)
    damage(path)
    with pytest.raises(CheckpointError, match="that whybox has saved"):
        kind.load(path)


def test_a_record_of_another_version_is_refused(tmp_path):
    path = tmp_path / "x"
    record().save(path)
    path.write_bytes(
        path.read_bytes().replace(b'"format\\": 1', b'"format\\": 9').replace(b'{\\"format', b'{\\"format')
    )
    text = path.read_bytes()
    assert b'format\\": 9' in text
    with pytest.raises(CheckpointError, match="written by another version of whybox; explain again"):
        Explanation.load(path)


def test_a_sample_alone():
    whole = record()
    one = whole.sample(1)
    assert len(whole) == 3
    assert len(one) == 1
    assert torch.equal(one.relevance, whole.relevance[1:2])
    assert torch.equal(one.inputs, whole.inputs[1:2])
    assert torch.equal(one.outputs, whole.outputs[1:2])
    assert one.target == ("b",)
    assert one.checks[0].values.tolist() == [math.inf]
    assert one.details["steps"].tolist() == [1]
    assert one.details["of"]["k"].shape == (1, 2)
    assert one.details["whole"] == 7
    assert one.details["table"].shape == (5,)
    assert one.details["layers"] == ("a", "b")
    two = record(relevance=(torch.ones(3, 2), torch.ones(3)), inputs=(torch.ones(3, 2), torch.ones(3))).sample(2)
    assert [r.shape for r in two.relevance] == [(1, 2), (1,)]
    for index in (3, -1):
        with pytest.raises(InputError, match=f"sample {index} is out of range: the explanation holds 3"):
            whole.sample(index)


def test_predictions():
    whole = record()
    top = whole.predictions(0, 2)
    assert [(p.index, p.label) for p in top] == [(1, "b"), (2, "c")]
    weights = [math.exp(v) for v in (1, 3, 2, 0)]
    assert top[0].score == 3
    assert top[0].probability == pytest.approx(weights[1] / sum(weights))
    assert [p.index for p in whole.predictions(2)] == [2, 0, 1, 3]  # ties in order
    assert whole.predictions(1, 1)[0].label == "class 3"  # beyond the labels
    for shape in ((3,), (3, 1)):
        (only,) = record(outputs=torch.full(shape, 2.0)).predictions(1)
        assert only.probability == pytest.approx(1 / (1 + math.exp(-2)))
    assert record(outputs=torch.zeros(3, 4, 5)).predictions() == []


def test_records_compare_by_identity():
    """Their tensors have no single truth value."""
    one, other = record(), record()
    assert one == one
    assert one != other
    assert one.checks[0] != other.checks[0]
    assert len({one, other}) == 2


def test_a_check_passes_up_to_its_limit_and_nan_does_not():
    check = Check("gap", torch.tensor([0.5, 0.500001, math.nan, -1.0, math.inf]), 0.5, "")
    assert check.passed.tolist() == [True, False, False, True, False]


# Fitted.


def test_fitted_methods(tmp_path):
    torch.manual_seed(0)
    net, data, x = nn.Linear(4, 2), torch.randn(20, 4), torch.randn(3, 4)
    fitted = ExpectedGradients(samples=200).fit(net, data)
    assert torch.equal(fitted.state["baselines"], data)
    data.zero_()
    assert fitted.state["baselines"].any()  # a copy
    baselines = fitted.state["baselines"]
    expected = (x - baselines.mean(0)) * net.weight[1].detach()
    torch.testing.assert_close(fitted(net, x, 1, seed=1), expected, rtol=0, atol=0.3)
    fitted.save(tmp_path / "f")
    again = Fitted.load(tmp_path / "f")
    assert again == fitted
    assert hash(again) == hash(fitted)
    assert torch.equal(again(net, x, 1, seed=1), fitted(net, x, 1, seed=1))
    assert pickle.loads(pickle.dumps(fitted)) == fitted
    assert fitted.taxonomy == ExpectedGradients.taxonomy
    assert fitted.needs() == "gradients"
    assert fitted.config() == {**ExpectedGradients(samples=200).config(), "fitted": fitted.digest}
    smooth = SmoothGrad(of=fitted, samples=2, noise=0.0)
    assert smooth(net, x, 1).shape == x.shape
    with pytest.raises(InputError, match=r"fitted to inputs of shape \(4,\), but asked to explain \(5,\)"):
        fitted(nn.Linear(5, 2), torch.randn(3, 5), 1)
    with pytest.raises(InputError, match="single input only"):
        ExpectedGradients().fit(nn.Bilinear(2, 2, 2), (torch.ones(1, 2), torch.ones(1, 2)))
    with pytest.raises(InputError, match="NaN or infinity"):
        ExpectedGradients().fit(net, torch.full((2, 4), math.nan))


def test_fitted_methods_are_equal_by_what_they_have_learned():
    def fitted(state, samples=3):
        return Fitted(ExpectedGradients(samples=samples), state)

    ones = {"a": torch.ones(2), "b": torch.tensor(1.0)}
    assert fitted(ones) == fitted({"b": torch.tensor(1.0), "a": torch.ones(2)})
    assert fitted({"a": torch.ones(4, 2).T}) == fitted({"a": torch.ones(2, 4)})
    different = [
        fitted(ones),
        fitted(ones, samples=4),
        fitted({**ones, "a": torch.tensor([1.0, 1.0000001])}),
        fitted({**ones, "a": torch.ones(2, dtype=torch.float64)}),
        fitted({**ones, "a": torch.ones(2, 1)}),
        fitted({"a": torch.ones(2), "c": torch.tensor(1.0)}),
        fitted({}),
    ]
    assert len(set(different)) == len(different)


def test_a_configuration_finds_what_was_fitted_in_its_file(tmp_path):
    path = str(tmp_path / "f.safetensors")
    fitted = ExpectedGradients(samples=3).fit(nn.Linear(4, 2), torch.ones(2, 4))
    with pytest.raises(InputError, match="read it with Fitted"):
        whybox.method(**fitted.config())
    fitted.save(path)
    loaded = whybox.method(path)
    assert loaded.config() == {**fitted.config(), "file": path}
    for method in (loaded, SmoothGrad(of=loaded)):
        assert whybox.method(**json.loads(json.dumps(method.config()))) == method
        assert whybox.method(config_text(method.config())) == method
    with pytest.raises(CheckpointError, match="does not hold"):
        whybox.method(**{**loaded.config(), "samples": 4})
    ExpectedGradients(samples=3).fit(nn.Linear(4, 2), torch.zeros(2, 4)).save(path)
    with pytest.raises(CheckpointError, match=f"does not hold the expected_gradients with the digest {fitted.digest}"):
        whybox.method(**loaded.config())


def test_a_file_can_only_name_registered_methods(tmp_path):
    save_file({}, str(tmp_path / "f"), {"whybox": json.dumps({"name": "os.system"})})
    with pytest.raises((CheckpointError, UnknownNameError)):
        Fitted.load(tmp_path / "f")


def test_an_explanation_keeps_copies():
    """What the user does with the inputs afterwards does not change the record."""
    x = torch.randn(2, 3)
    answer = explain(Model(nn.Linear(3, 2)), x, "gradient", checks=False)
    before = answer.inputs.clone()
    x.zero_()
    assert torch.equal(answer.inputs, before)
