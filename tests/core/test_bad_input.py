"""Bad input gets a clear error that says what to do."""

import subprocess
import sys
from collections import namedtuple

import pytest
import torch
from torch import nn

import whybox
from whybox import (
    CAM,
    Domain,
    ExpectedGradients,
    External,
    GradCAM,
    Gradient,
    IntegratedGradients,
    Model,
    Neuron,
    SmoothGrad,
    Superpixels,
    VarGrad,
)
from whybox.core.errors import InputError, MissingExtraError, ModelError, UnknownNameError, optional_import

X = torch.ones(2, 3)
NET = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
LOOK = External(lambda net, x, y: torch.zeros(x.shape))


class Formula(nn.Module):
    def __init__(self, formula):
        super().__init__()
        self.formula = formula
        self.ran = 0

    def forward(self, *inputs, **kwargs):
        self.ran += 1
        return self.formula(*inputs, **kwargs)


def with_value(value):
    x = torch.zeros(4, 3)
    x[1, 2] = x[3, 0] = value
    return x


@pytest.mark.parametrize("method", [Gradient(), SmoothGrad(samples=2), IntegratedGradients(steps=2), LOOK], ids=repr)
@pytest.mark.parametrize(
    ("x", "says"),
    [
        (with_value(float("nan")), r"NaN or infinity in sample\(s\) \[1, 3\]; clean it"),
        (with_value(float("-inf")), r"NaN or infinity in sample\(s\) \[1, 3\]; clean it"),
        (torch.zeros(0, 3), r"the batch is empty: .* \(0, 3\), but the batch comes first"),
        (torch.tensor(1.0), r"the batch is empty: .* \(\), but the batch comes first"),
        (torch.zeros(2, 0), r"shape \(2, 0\): its samples hold no values"),
        ((), "empty tuple; give one tensor"),
        ((X, X[:1]), "the inputs have 2 and 1 samples; each needs one row per sample"),
    ],
    ids=["nan", "inf", "empty", "0-dim", "no values", "no inputs", "mismatched"],
)
def test_input_is_refused_before_any_work(method, x, says):
    net = Formula(lambda *x: x[0])
    with pytest.raises(InputError, match=says):
        method(net, x, 0)
    assert net.ran == 0
    with pytest.raises(InputError, match=says):
        whybox.explain(net, x, method, 0)


WRONG_TYPES = """
import re, torch, whybox
from whybox import External, Gradient, Logit, Neuron, method
from whybox.core.errors import InputError, ModelError, TargetError
net, x = torch.nn.Linear(3, 2), torch.ones(2, 3)
CASES = [
    (lambda: Gradient()(net, [1.0], 0), InputError, "a Tensor or a tuple of Tensors, not list; try torch.as_tensor"),
    (lambda: Gradient()(net, x.numpy(), 0), InputError, "not ndarray; try torch.as_tensor"),
    (lambda: Gradient()(net, (x, 1), 0), InputError, "not int; try torch.as_tensor"),
    (lambda: Gradient()(lambda x: x, x, 0), ModelError, "a torch.nn.Module, not function; put the function"),
    (lambda: Gradient()(net, x, (1.0,)), TargetError, r"integers, as in \\(c, y, x\\)"),
    (lambda: Gradient()(net, x, Logit("cat")), TargetError, "an integer class index, not 'cat'"),
    (lambda: Gradient()(net, x, Neuron("", 1.0)), TargetError, "integers"),
    (lambda: method("integrated_gradients(rule='simpson')"), InputError, "or 'riemann', not 'simpson'"),
    (lambda: method("integrated_gradients(steps=2.5)"), InputError, "steps of .* is int or None, not 2.5"),
    (lambda: method("expected_gradients(samples=2.5)"), InputError, "samples of .* is int, not 2.5"),
    (lambda: method("smooth_grad(samples=2.5)"), InputError, "samples of .* is int, not 2.5"),
    (lambda: method("smooth_grad", of="gradient"), InputError, "of of smooth_grad is Method, not 'gradient'"),
    (lambda: method("smooth_grad(samples='many')"), InputError, "samples of .* is int, not 'many'"),
    (lambda: External(lambda n, x, y: None)(net, x, 0), ModelError, "external gave a NoneType, not a Tensor"),
    (lambda: External(lambda n, x, y: x.numpy())(net, x, 0), ModelError, "gave a ndarray, not a Tensor"),
]
for run, error, says in CASES:
    try:
        run()
    except error as caught:
        assert re.search(says, str(caught)), (says, caught)
    else:
        raise AssertionError(says)
"""


def test_what_the_type_checker_would_catch_in_the_tests():
    """In a process of its own, without the checks of annotations: as a user meets it."""
    subprocess.run([sys.executable, "-c", WRONG_TYPES], check=True)


@pytest.mark.parametrize("method", [Gradient(), SmoothGrad(of=IntegratedGradients()), CAM(), GradCAM()], ids=repr)
def test_integers_for_a_gradient_method(method):
    with pytest.raises(
        InputError, match=r"int64: convert it with .float\(\), or .* explain the embedding layer with at"
    ):
        method(NET, torch.ones(2, 3, dtype=torch.long), 0)


def test_integers_are_fine_where_no_gradient_is_taken():
    net = nn.Sequential(nn.Embedding(5, 3), nn.Flatten(), nn.Linear(6, 2))
    tokens = torch.tensor([[0, 4], [1, 1]])
    assert LOOK(net, tokens, 0).shape == tokens.shape
    assert Gradient()(net, tokens, 0, at="0").shape == (2, 2, 3)
    with pytest.raises(InputError, match=r"noise cannot be added to integers; convert them with .float\(\)"):
        VarGrad(of=LOOK)(net, tokens, 0)


def test_integers_inside_the_model():
    net = nn.Sequential(Formula(lambda x: (x > 0).long()), nn.Embedding(2, 3), nn.Flatten(), nn.Linear(9, 2))
    with pytest.raises(InputError, match=r"int64; choose another layer"):
        Gradient()(net, X, 0, at="0")


@pytest.mark.parametrize(
    "run",
    [
        lambda name: Gradient()(NET, X, 0, at=name),
        lambda name: Gradient()(NET, X, Neuron(name)),
        lambda name: GradCAM(layer=name)(NET, torch.ones(2, 1, 4, 3), 0),
        lambda name: GradCAM(layer=("0", name))(NET, torch.ones(2, 1, 4, 3), 0),
    ],
)
def test_a_layer_that_does_not_exist(run):
    for name in ("O", "layer4"):
        with pytest.raises(UnknownNameError, match=f"no layer '{name}'.*`whybox layers MODEL` lists them"):
            run(name)


def test_the_nearest_names_are_offered():
    net = nn.ModuleDict({"layer3": nn.Linear(3, 3), "layer4": nn.Linear(3, 3), "head": nn.Linear(3, 2)})
    with pytest.raises(UnknownNameError, match=r"no layer 'Layer4'; did you mean 'layer4', 'layer3'"):
        whybox.core.taps.find_layer(net, "Layer4")
    with pytest.raises(UnknownNameError, match=r"no method 'smoothgrad'; did you mean 'smooth_grad'"):
        whybox.method("smoothgrad")
    with pytest.raises(UnknownNameError, match="no field of smooth_grad 'sample'; did you mean 'samples'"):
        whybox.method("smooth_grad", sample=3)
    with pytest.raises(UnknownNameError, match="no method or value 'gradiant'; did you mean 'gradient'"):
        whybox.method("smooth_grad(of=gradiant)")
    with pytest.raises(UnknownNameError, match="`whybox methods` lists them all"):
        whybox.explain(NET, X, "xyz")


def test_an_alias_of_a_shared_layer_is_found():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = self.second = nn.Linear(3, 3)

        def forward(self, x):
            return self.second(x)

    assert Gradient()(Tied(), X, 0, at="second").shape == X.shape


def test_the_device_is_checked():
    with pytest.raises(InputError, match=r"the input is on cpu, the model on meta; move one of them with .to\(\)"):
        Gradient()(nn.Linear(3, 2, device="meta"), X, 0)


def test_a_dtype_that_does_not_fit():
    with pytest.raises(InputError, match=r"input is torch.float64, the model torch.float32; use .to\(torch.float32\)"):
        Gradient()(NET, X.double(), 0)
    with pytest.raises(RuntimeError, match="mat1 and mat2 shapes cannot be multiplied"):  # and nothing else is hidden
        Gradient()(NET, torch.ones(2, 5), 0)


@pytest.mark.parametrize(
    "formula",
    [lambda x: x.detach() * 2, lambda x: torch.ones(len(x), 2), lambda x: x.round().long().float()],
    ids=["detach", "constant", "integer"],
)
def test_a_model_that_cannot_be_differentiated(formula):
    for method in (Gradient(), IntegratedGradients(steps=2), SmoothGrad(samples=2), ExpectedGradients(samples=2)):
        with pytest.raises(ModelError, match=r"can be differentiated .* use a method that needs outputs only"):
            method(Formula(formula), X, 0)


def test_a_model_under_no_grad():
    with pytest.raises(ModelError, match="no_grad"):
        Gradient()(Formula(torch.no_grad()(lambda x: x * 2)), X, 0)


Output = namedtuple("Output", ["logits", "hidden"])


class Record:
    def __init__(self, logits):
        self.logits = logits


@pytest.mark.parametrize(
    "wrap",
    [lambda y: y, lambda y: (y,), lambda y: {"logits": y, "loss": None}, lambda y: Output(y, None), Record],
    ids=["tensor", "tuple of one", "dict", "namedtuple", "object"],
)
def test_outputs_that_are_unwrapped(wrap):
    weight = torch.tensor([[1.0, 2, 3], [4, 5, 6]])
    net = Formula(lambda x: wrap(x @ weight.T))
    assert torch.equal(Gradient()(net, X, 1), weight[[1, 1]])
    assert torch.equal(Model(net)(X), X @ weight.T)


@pytest.mark.parametrize(
    ("wrap", "says"),
    [
        (lambda y: (y, y), "returns a tuple; .* Put it into a module whose forward picks the tensor"),
        (lambda y: {"out": y}, "returns a dict; it must return a tensor or an object with `.logits`"),
        (lambda y: None, "returns a NoneType"),
        (lambda y: y > 0, "returns torch.bool; only floating-point scores"),
        (lambda y: y.to(torch.complex64), "returns torch.complex64; only floating-point"),
        (lambda y: y.sum(), r"returns shape \(\) for 2 samples, but each needs a row of its own"),
        (lambda y: y.T, r"returns shape \(3, 2\) for 2 samples, but each needs a row"),
        (lambda y: y[:1], r"returns shape \(1, 3\) for 2 samples"),
    ],
    ids=["tuple", "dict", "None", "bool", "complex", "scalar", "transposed", "one row"],
)
def test_outputs_that_are_refused(wrap, says):
    for target in (0, None):
        with pytest.raises(ModelError, match=says):
            Gradient()(Model(Formula(lambda x: wrap(x * 2)), chunk=2), X, target)


@pytest.mark.parametrize("classes", [1, 3])
@pytest.mark.parametrize("chunk", [None, 1, 3])
def test_a_model_that_squeezes_the_batch_axis_of_one_sample(classes, chunk):
    """Chunks of one sample are whybox's doing, so a model that squeezes must not notice."""
    weight = torch.randn(classes, 3)
    net = Model(Formula(lambda x: (x @ weight.T).squeeze()), chunk=chunk)
    x = torch.randn(3, 3)
    expected = weight[classes - 1].expand(3, 3)
    assert torch.equal(Gradient()(net, x, classes - 1), expected)
    assert torch.equal(SmoothGrad(samples=2)(net, x[:1], classes - 1), expected[:1])


def test_a_prediction_that_is_not_finite():
    def formula(x):
        return torch.where(x[:, :1] > 0, torch.nan, x)

    x = torch.tensor([[-1.0, 0, 0], [1, 0, 0]])
    with pytest.raises(ModelError, match=r"output is not finite for sample\(s\) \[1\]"):
        Gradient()(Formula(formula), x)


def test_relevance_that_is_not_finite_is_said():
    answer = Gradient().run(Formula(torch.sqrt), torch.tensor([[1.0, 1], [0, 1]]), 0)
    (check,) = answer.checks
    assert check.name == "entries not finite"
    assert check.values.tolist() == [0, 1]
    assert check.passed.tolist() == [True, False]


def test_a_model_made_in_inference_mode():
    with torch.inference_mode():
        net = nn.Linear(3, 2)
    with pytest.raises(ModelError, match=r"made under torch.inference_mode; load it outside"):
        Gradient()(net, X, 0)


def test_inputs_and_keywords_made_in_inference_mode_are_fine():
    with torch.inference_mode():
        x, scale = torch.ones(2, 3), torch.full((3,), 2.0)
        answer = Gradient()(Formula(lambda x, scale: x * x * scale), x, 0, forward_kwargs={"scale": scale})
    assert not answer.is_inference()
    assert torch.equal(answer, torch.tensor([[4.0, 0, 0]] * 2))


def test_a_lazy_model():
    with pytest.raises(ModelError, match="lazy layers that are not initialised; run it once"):
        Gradient()(nn.LazyLinear(2), X, 0)


def test_layers_that_do_not_keep_the_batch_first():
    class TimeFirst(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = nn.Linear(3, 3)
            self.head = nn.Linear(3, 2)

        def forward(self, x):
            return self.head(self.inner(x.transpose(0, 1)).mean(0))

    x = torch.randn(2, 5, 3)
    for run in (
        lambda: IntegratedGradients(steps=2)(TimeFirst(), x, 0, at="inner"),
        lambda: Gradient()(TimeFirst(), x, Neuron("inner")),
        lambda: GradCAM(layer="inner")(TimeFirst(), torch.randn(2, 5, 3), 0),
    ):
        with pytest.raises(ModelError, match=r"layer 'inner' gives shape \(5, 1, 3\) for 1 samples.*batch axis first"):
            run()


def test_a_layer_that_runs_twice_or_never():
    inner = nn.Linear(3, 3)
    net = nn.Sequential(inner, nn.ReLU(), inner)
    with pytest.raises(ModelError, match="layer '0' runs 2 times in a forward pass; `at` needs one that runs once"):
        Gradient()(net, X, 0, at="0")

    class Idle(nn.Linear):
        def __init__(self):
            super().__init__(3, 2)
            self.idle = nn.ReLU()

    with pytest.raises(ModelError, match="layer 'idle' does not run in the forward pass"):
        Gradient()(Idle(), X, 0, at="idle")
    with pytest.raises(ModelError, match="runs 0 times in a forward pass"):
        Gradient()(Idle(), X, Neuron("idle"))
    picture = torch.randn(2, 1, 4, 4)
    conv = nn.Conv2d(1, 1, 1)
    twice = nn.Sequential(conv, conv, nn.Flatten(), nn.Linear(16, 2))
    with pytest.raises(ModelError, match="layer '0' runs more than once in a forward pass; choose another"):
        GradCAM(layer="0")(twice, picture, 0)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: SmoothGrad(samples=0), "whole samples ≥ 1"),
        (lambda: SmoothGrad(noise=-0.1), "noise ≥ 0"),
        (lambda: SmoothGrad(noise=float("nan")), "noise ≥ 0"),
        (lambda: IntegratedGradients(steps=0), "whole steps ≥ 1, or None"),
        (lambda: IntegratedGradients(tolerance=0.0), "a tolerance above 0"),
        (lambda: ExpectedGradients(samples=0), "whole samples ≥ 1"),
        (lambda: whybox.Blur(0.0), "positive sigma"),
        (lambda: whybox.Patches(0), "at least one position wide"),
        (lambda: whybox.Grid(0), "at least one patch along an axis"),
        (lambda: Model(NET, chunk=0), "at least 1, not 0"),
        (lambda: Domain((0.0, 0.0), (1.0,)), "as many lowest as highest"),
        (lambda: Domain((), ()), "as many lowest as highest"),
        (lambda: Domain((2.0,), (1.0,)), "lie above"),
        (lambda: Domain((0.0,) * 3, (1.0,) * 3).bounds(torch.zeros(1, 2, 4, 4)), "3 channels, .* shape is"),
    ],
)  # fmt: skip
def test_fields_that_make_no_sense(make, says):
    with pytest.raises(InputError, match=says):
        make()


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (lambda x: (x, x), "gave relevance for 2 inputs, but the model has 1"),
        (lambda x: x.sum(1), r"gave relevance of shape \(2,\) for an input of shape \(2, 3\)"),
        (lambda x: x[:1], r"gave relevance of shape \(1, 3\)"),
        (lambda x: x[:, :2], r"gave relevance of shape \(2, 2\)"),
    ],
)
def test_relevance_of_the_wrong_kind(given, says):
    with pytest.raises(ModelError, match=says):
        External(lambda net, x, y: given(x))(NET, X, 0)


def test_what_external_cannot_pass_on():
    external = External(lambda net, x, y: x, "their method")
    for target in (lambda out: out[:, 0], whybox.Probability(1), whybox.Contrast(0, 1), (1,), Neuron("0")):
        with pytest.raises(InputError, match="their method can only explain the score of a class at the input"):
            external(NET, X, target)
    with pytest.raises(InputError, match="can only explain the score of a class at the input"):
        external(NET, X, 0, at="0")
    with pytest.raises(InputError, match="cannot pass forward_kwargs on; put the model into a module that sets them"):
        external(Formula(lambda x, a: x), X, 0, forward_kwargs={"a": 1})


def test_class_activation_maps_need_one_input_with_positions():
    for method in (CAM(), GradCAM(), GradCAM(layer="0")):
        with pytest.raises(InputError, match=r"need an input with positions: pictures \(n, c, h, w\), series or video"):
            method(NET, X, 0)
        with pytest.raises(InputError, match="a single input; give the model's others as forward_kwargs"):
            method(nn.Bilinear(3, 3, 2), (X, X), 0)


def test_a_method_without_anything_to_learn():
    with pytest.raises(InputError, match="Gradient has nothing to fit; call it directly"):
        Gradient().fit(NET, X)


def test_superpixels_need_pictures():
    with pytest.raises(InputError, match=r"superpixels need pictures \(n, c, h, w\)"):
        Superpixels().labels(X)


def test_missing_extras_give_the_line_that_installs_them():
    with pytest.raises(MissingExtraError, match=r"the package 'no_such_package': pip install 'whybox\[vision\]'"):
        optional_import("no_such_package.part", "vision")
    assert optional_import("json", "vision").dumps({}) == "{}"


def test_an_illegal_edit_in_place_is_found_also_in_the_first_chunk():
    """The first chunk measures memory with hooks, under which autograd itself does not look."""

    def formula(x):
        y = x.exp()
        y.add_(1)  # exp needs its own output in backward
        return y

    for n in (1, 3):
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            Gradient()(Formula(formula), torch.ones(n, 2), 0)
