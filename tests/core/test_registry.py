"""The registry: names, values and text are one and the same method; nothing is evaluated."""

import dataclasses
import importlib
import importlib.metadata
import inspect
import json
import pickle
import pkgutil
import re
import subprocess
import sys
import textwrap
from typing import get_type_hints

import pytest
import yaml

import whybox
from whybox import (
    LRP,
    Blur,
    Composite,
    Constant,
    ExpectedGradients,
    External,
    Fitted,
    GradCAM,
    Gradient,
    Group,
    Imputed,
    InputXGradient,
    IntegratedGradients,
    Match,
    Method,
    Patches,
    Rule,
    SmoothGrad,
    VarGrad,
    rules,
)
from whybox.core import names, reference, regions, registry
from whybox.core.card import card
from whybox.core.errors import InputError, UnknownNameError
from whybox.core.registry import method_class

PAIRS = (
    (Match(first=True), rules.flat()),
    (Match(kind="convolution", module="features.*"), rules.alpha_beta(3.0, 2.0)),
    (Match(pixels=False), Rule("mine", (Group(positive=(1.0, 0.5), where="z>0"), Group(factor=-0.5)), 0.1)),
)
CLASSES = [registry.method_class(name) for name in whybox.methods()]
EXAMPLES = [
    *(whybox.method(name) for name in whybox.methods()),
    GradCAM(layer=("a", "b.1")),
    GradCAM(layer="layer4"),
    IntegratedGradients(steps=7, rule="riemann", baseline=Constant(0.25)),
    ExpectedGradients(samples=3, baseline=Imputed(noise=0.1)),
    SmoothGrad(of=VarGrad(of=IntegratedGradients(baseline=Blur(2.0)), samples=4), noise=0.5),
    LRP(composite=Composite()),
    LRP(composite=Composite(PAIRS, otherwise=rules.gamma(0.1))),
    SmoothGrad(of=LRP(composite=Composite(PAIRS[:1]))),
]


def test_the_table_is_the_tree():
    """Every concrete method of the package is registered under its name in snake case, and nothing else is.

    Names of networks are one word: DeSaLiNet is desalinet; and so is L2X.
    """
    for module in pkgutil.walk_packages(whybox.__path__, "whybox."):
        if not re.match(r"whybox\.(report|plot|cli|models|datasets)", module.name):
            importlib.import_module(module.name)
    found, open_classes = {}, [Method]
    while open_classes:
        cls = open_classes.pop()
        open_classes += cls.__subclasses__()
        ours = cls.__module__.startswith("whybox.") and cls not in (Method, External, Fitted)
        if ours and "attribute" in vars(cls):
            words = re.findall(r"\w+Net$|L2X|[A-Z]+(?=[A-Z][a-z])|[A-Z][a-z0-9]+|[A-Z]+", cls.__name__)
            found["_".join(words).lower()] = f"{cls.__module__}:{cls.__name__}"
    assert found == names.METHODS | names.CONTROLS
    assert whybox.methods() == list(names.METHODS)
    for name, cls in [*zip(whybox.methods(), CLASSES, strict=True), *((n, method_class(n)) for n in names.CONTROLS)]:
        assert registry.name_of(cls) == name
        assert getattr(whybox, cls.__name__) is cls


def test_the_values_are_those_of_the_tree():
    values = [*reference.Infill.__subclasses__(), *regions.Regions.__subclasses__(), Composite, Group, Match, Rule]
    ours = [cls for cls in values if cls.__module__.startswith("whybox.")]  # tests have some of their own
    assert {cls.__name__: f"{cls.__module__}:{cls.__name__}" for cls in ours} == names.VALUES
    assert all(getattr(whybox, cls.__name__) is cls for cls in ours)


def test_the_makers_are_the_functions_that_make_rules():
    made = {
        name: f"{rules.__name__}:{name}"
        for name, function in vars(rules).items()
        if inspect.isfunction(function) and get_type_hints(function).get("return") is Rule
    }
    assert made == names.MAKERS


@pytest.mark.parametrize("method", EXAMPLES, ids=repr)
def test_a_method_is_a_value(method):
    assert whybox.method(**method.config()) == method
    assert whybox.method(**json.loads(json.dumps(method.config()))) == method
    assert whybox.method(**yaml.safe_load(yaml.safe_dump(method.config()))) == method
    again = pickle.loads(pickle.dumps(method))
    assert again == method
    assert hash(again) == hash(method)
    assert repr(again) == repr(method)
    assert len({method, again, *EXAMPLES}) == len(set(EXAMPLES))
    assert dataclasses.is_dataclass(method)
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.samples = 3
    assert method.taxonomy.shows in ("features", "regions", "mask", "contrast")
    assert isinstance(method.taxonomy.model_agnostic, bool)


def test_every_example_is_different():
    assert len(set(EXAMPLES)) == len(EXAMPLES)
    assert Gradient() != InputXGradient()
    assert SmoothGrad(samples=3) != SmoothGrad(samples=4)


@pytest.mark.parametrize("cls", [*CLASSES, External], ids=lambda cls: cls.__name__)
def test_the_docstring_says_what_one_must_know(cls):
    said = card(cls)
    assert said.summary.startswith("Relevance R")
    assert said.cost
    assert said.limits
    assert said.source
    assert set(said.fields) == {field.name for field in dataclasses.fields(cls)}
    assert all(said.fields.values())
    assert vars(cls).get("taxonomy") is not None


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("gradient", Gradient()),
        ("gradient()", Gradient()),
        (" smooth_grad( samples = 16 ) ", SmoothGrad(samples=16)),
        ("smooth_grad(of=gradient, samples=16)", SmoothGrad(samples=16)),
        ("smooth_grad(of=input_x_gradient())", SmoothGrad(of=InputXGradient())),
        ("var_grad(of=smooth_grad(of=integrated_gradients(steps=4, baseline=Constant(value=-0.5)), samples=2))",
         VarGrad(of=SmoothGrad(of=IntegratedGradients(steps=4, baseline=Constant(-0.5)), samples=2))),
        ("expected_gradients(baseline=Black)", ExpectedGradients(baseline=reference.Black())),
        ("grad_cam(layer='layer4')", GradCAM("layer4")),
        ("grad_cam(layer=('a', 'b'))", GradCAM(("a", "b"))),
        ("grad_cam(layer=['a', 'b'])", GradCAM(("a", "b"))),
        ("integrated_gradients(steps=None)", IntegratedGradients()),
        ("lrp(composite=Composite(table=((Match(first=True), flat()), (Match(kind='dense'), z_plus(epsilon=0.1)))))",
         LRP(Composite(((Match(first=True), rules.flat()), (Match(kind="dense"), rules.z_plus(0.1)))))),
        ("lrp(composite=Composite(otherwise=Rule(label='mine', groups=(Group(positive=(2.0, 1.0)),))))",
         LRP(Composite(otherwise=Rule("mine", (Group(positive=(2.0, 1.0)),))))),
    ],
)  # fmt: skip
def test_text(text, method):
    built = whybox.method(text.strip() if "(" not in text else text)
    assert built == method
    assert hash(built) == hash(method)


@pytest.mark.parametrize(
    "text",
    [
        "smooth_grad(16)",
        "smooth_grad(samples=)",
        "smooth_grad(samples=16",
        "smooth_grad(samples=__import__('os').getpid())",
        "smooth_grad(samples=1 + 1)",
        "smooth_grad(samples=[x for x in (1,)])",
        "smooth_grad(samples=(lambda: 3)())",
        "smooth_grad(samples={[]: 1})",
        "smooth_grad(noise=f'{1}')",
        "smooth_grad(samples=1, samples=2)",
        "os.system('true')",
        "(gradient)()()",
        "gradient()[0]",
        "smooth_grad(samples=1); 2",
        "Zero()",
        "Patches(size=2)",
        "smooth_grad(samples=" + "(" * 5000 + ")" * 5000 + ")",
        "smooth_grad(\0)",
        "",
    ],
    ids=lambda text: text[:40] or "empty",
)
def test_text_that_is_refused(text):
    with pytest.raises((InputError, UnknownNameError)):
        whybox.method(text)


@pytest.mark.parametrize(
    "text", ["smooth_grad(**{'samples': 2})", "smooth_grad(of=SmoothGrad)", "nothing(a=1)", "gradient(steps=1)"]
)
def test_text_with_unknown_names(text):
    with pytest.raises(UnknownNameError):
        whybox.method(text)


def test_values_that_do_not_fit():
    with pytest.raises(UnknownNameError, match="no method or value 'blurr'; did you mean 'Blur'"):
        whybox.method("integrated_gradients", baseline={"name": "blurr"})
    with pytest.raises(UnknownNameError, match="no field of Blur 'size'"):
        whybox.method("integrated_gradients", baseline={"name": "Blur", "size": 3})
    with pytest.raises(InputError, match="Constant cannot be built from"):
        whybox.method("integrated_gradients", baseline={"name": "Constant"})
    assert registry._from_config({"name": "Patches", "size": 3}) == Patches(3)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("grad_cam(layer=3)", r"the field layer of grad_cam is str or tuple\[str, \.\.\.\] or None, not 3"),
        ("grad_cam(layer=('a', 3))", "field layer"),
        ("integrated_gradients(baseline=gradient)", r"the field baseline of .* is Infill, not Gradient\(\)"),
        ("integrated_gradients(baseline='zero')", "field baseline"),
        ("integrated_gradients(steps=2.5)", r"steps of integrated_gradients is int or None, not 2\.5"),
        ("integrated_gradients(rule='simpson')", "field rule"),
        ("smooth_grad(samples=True)", "samples of smooth_grad is int, not True"),
        ("smooth_grad(of=3)", "of of smooth_grad is Method"),
        ("smooth_grad(of=Zero)", "of of smooth_grad is Method"),
        ("lrp(composite=flat)", "field composite"),
        ("lrp(composite=Composite(table=(Match(), flat())))", "field table of Composite"),
        ("lrp(composite=Composite(table=((flat(), Match()),)))", "field table of Composite"),
        ("lrp(composite=Composite(table=((Match(),),)))", "field table of Composite"),
        ("lrp(composite=Composite(otherwise=gamma(value='much')))", "value of gamma is float, not 'much'"),
        ("lrp(composite=Composite(otherwise=gamma(value=-1.0)))", "not negative"),
        ("lrp(composite=Composite(otherwise=Rule(label='x', kind='best')))", "field kind of Rule"),
        ("lrp(unknown=None)", "field unknown"),
    ],
)
def test_fields_of_another_type_are_refused(text, says):
    with pytest.raises(InputError, match=says):
        whybox.method(text)


@dataclasses.dataclass(frozen=True)
class Theirs(Method):
    """A method of another package."""

    k: int = 1

    def attribute(self, task):
        return task.inputs * self.k


@pytest.fixture
def their_package(monkeypatch):
    """A distribution with three entry points: a method, one whose module is absent, and a name that is taken."""
    entries = [("theirs", f"{__name__}:Theirs"), ("broken", "no_such_module:X"), ("gradient", f"{__name__}:Theirs")]
    found = importlib.metadata.EntryPoints(
        importlib.metadata.EntryPoint(name, value, "whybox.methods") for name, value in entries
    )
    monkeypatch.setattr(registry, "entry_points", lambda group: found.select(group=group))
    monkeypatch.setitem(sys.modules, __name__, sys.modules[Theirs.__module__])
    registry._table.cache_clear()
    yield
    registry._table.cache_clear()


@pytest.mark.usefixtures("their_package")
def test_methods_of_other_packages():
    assert whybox.methods() == [*names.METHODS, "broken", "theirs"]
    assert whybox.method("theirs(k=3)") == Theirs(3)
    assert whybox.method("smooth_grad(of=theirs)") == SmoothGrad(of=Theirs())
    assert whybox.method(**SmoothGrad(of=Theirs(2)).config()) == SmoothGrad(of=Theirs(2))
    assert registry.name_of(Theirs) == "theirs"
    assert type(whybox.method("gradient")) is Gradient  # whybox's own names cannot be taken over
    with pytest.raises(ModuleNotFoundError):
        whybox.method("broken")


def test_an_unregistered_method_is_named_by_its_class():
    assert Theirs().config() == {"name": "theirs", "k": 1}
    for name, expected in (("GradCAM", "grad_cam"), ("LRP", "lrp"), ("L2X", "l2_x"), ("CDeepEx", "c_deep_ex")):
        assert registry.name_of(type(name, (Method,), {})) == expected


def python(code):
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_composite_that_is_no_table_of_pairs():
    python("""
        from whybox import Composite, Match, WhyboxError, rules
        for table in ((Match(), rules.flat()), ((rules.flat(), Match()),), [(Match(), rules.flat())], "epsilon"):
            try:
                Composite(table)
            except WhyboxError as error:
                assert "a composite is a tuple of pairs" in str(error)
            else:
                raise AssertionError(table)
        assert Composite(((Match(), rules.gamma(1)),)).table  # a whole number will do
    """)


def test_names_are_read_without_torch():
    python("""
        import sys
        import whybox
        assert "smooth_grad" in whybox.methods() and "SmoothGrad" in dir(whybox)
        import whybox.core.registry, whybox.core.errors
        heavy = {"torch", "numpy", "scipy", "skimage", "matplotlib", "safetensors"} & set(sys.modules)
        assert not heavy, heavy
        try:
            whybox.method("smooth_grade")
        except LookupError as error:
            assert "smooth_grad" in str(error)
        try:
            whybox.nothing
        except AttributeError as error:
            assert "nothing" in str(error)
        assert "torch" not in sys.modules
        assert whybox.SmoothGrad is type(whybox.method("smooth_grad"))
    """)


def test_a_handler_registered_before_anything_else_is_loaded_stays():
    python("""
        import whybox
        @whybox.attribution.backprop.handles("relu")
        def mine(engine, function, args, kwargs):
            raise AssertionError
        import torch
        import whybox.attribution.backprop.lrp
        from whybox.attribution.backprop.table import KINDS
        assert KINDS[torch.relu] is mine
    """)


def test_every_public_name_exists_whatever_was_imported_before():
    python("""
        import importlib, types
        import whybox.core.registry
        importlib.import_module("whybox.report")
        importlib.import_module("whybox.explaining")
        import whybox
        for name in whybox.__all__:
            value = getattr(whybox, name)
            assert isinstance(value, types.ModuleType) == (name in whybox._MODULES), name
    """)
