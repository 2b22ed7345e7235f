"""The guard: after any run, also one that raises midway, everything is bit for bit as it was."""

import contextlib
import itertools
import subprocess
import sys
import threading

import numpy
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from snapshots import bits, differences, of_buffer, of_module, of_process, of_tensor
from torch import nn
from torch.nn.utils import parametrizations

import whybox
from whybox import External, Gradient, IntegratedGradients, Model, SmoothGrad
from whybox.contrast.latent import Latent
from whybox.core.errors import WhyboxError
from whybox.core.guard import guard

CHANNELS = 2


class BoomError(Exception):
    """Raised by a model midway."""


class Editor(nn.Module):
    """Edits a buffer in place in every forward."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(3))
        self.register_buffer("nothing", None)

    def forward(self, x):
        self.seen += 1
        return x


class SecretEditor(Editor):
    """Edits a buffer through `.data`, which does not count as a version."""

    def forward(self, x):
        self.seen.data.add_(1)
        return x


class Grower(Editor):
    """Gives a buffer another shape."""

    def forward(self, x):
        self.seen.data = torch.zeros(len(self.seen) + 1)
        return x


class Exchanger(Editor):
    """Exchanges a buffer for another, adds a new one, and notes which size they have."""

    size = 3

    def forward(self, x):
        self.size = self.size + 1
        self.seen = torch.zeros(self.size)
        self.register_buffer("late", torch.ones(self.size), persistent=False)
        return x


class Keeper(nn.Module):
    """Keeps what passed, with its graph, as an attribute."""

    def __init__(self):
        super().__init__()
        self.kept = torch.zeros(1)

    def forward(self, x):
        self.kept = self.another = x * 1
        return x


class SideEffect(nn.Module):
    """Overrides `train` with side effects on flags and weights."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def train(self, mode=True):
        with torch.no_grad():
            self.scale.mul_(2)
        self.scale.requires_grad_(mode)
        return super().train(mode)

    def forward(self, x):
        return x * self.scale


class Awake(nn.Module):
    """Switches itself and its weight to training in every forward."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, x):
        self.train()
        self.scale.requires_grad_(not self.scale.requires_grad)
        return x * self.scale


class Rude(nn.Module):
    """Draws random numbers everywhere."""

    def forward(self, x):
        noise = torch.rand(()) + numpy.random.rand()
        return x.clone().mul_(1 + 0.01 * float(noise))  # not in place: the block before may need its output


BLOCKS = {
    "conv": lambda: nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
    "norm": lambda: nn.BatchNorm2d(CHANNELS),
    "norm of the batch": lambda: nn.BatchNorm2d(CHANNELS, track_running_stats=False),
    "dropout": lambda: nn.Dropout(0.5),
    "spectral": lambda: parametrizations.spectral_norm(nn.Conv2d(CHANNELS, CHANNELS, 1)),
    "old spectral": lambda: torch.nn.utils.spectral_norm(nn.Conv2d(CHANNELS, CHANNELS, 1)),
    "relu": lambda: nn.Sequential(nn.Conv2d(CHANNELS, CHANNELS, 1), nn.ReLU(inplace=True)),
    "editor": Editor,
    "secret editor": SecretEditor,
    "grower": Grower,
    "exchanger": Exchanger,
    "keeper": Keeper,
    "side effect": SideEffect,
    "awake": Awake,
    "rude": Rude,
}


class Net(nn.Module):
    """Blocks, possibly with one used twice and one that raises, and a head with global average pooling."""

    def __init__(self, blocks, twice, fuse):
        super().__init__()
        self.blocks = nn.ModuleList(blocks)
        if twice and blocks:
            self.blocks.append(blocks[0])
        self.last = nn.Conv2d(CHANNELS, 4, 3, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(4, 3)
        self.fuse = fuse

    def forward(self, x):
        x = x.add_(0.0)  # in place on the input itself
        for block in self.blocks:
            x = block(x)
        self.fuse()
        return self.head(self.pool(self.last(x)).flatten(1))


def fuse(at, error):
    """A function that raises when it is called for the at-th time."""
    calls = itertools.count(1)

    def burn():
        if next(calls) == at:
            raise error

    return burn


class Draw(nn.Module):
    """A generator of inputs from three numbers."""

    def __init__(self):
        super().__init__()
        self.last = nn.Linear(3, CHANNELS * 25)

    def forward(self, z):
        return self.last(z).view(-1, CHANNELS, 5, 5)


LATENT = Latent.of(Draw(), 3)


def small(name):
    """The registered method with few steps, samples and regions; fitted where it must be."""
    fields = whybox.core.registry.method_class(name).__dataclass_fields__
    few = {"samples": 8, "steps": 3, "rounds": 1, "weights": 5, "regions": whybox.Along(1), "latent": LATENT}
    method = whybox.method(name, **{key: value for key, value in few.items() if key in fields})
    if name != "casme":  # the others can do without
        return method
    return method.fit(Net([], False, lambda: None), (torch.randn(24, CHANNELS, 5, 5), torch.arange(24) % 3))


# These answer for the model of their fit only.
OF_ITS_MODEL = ("l2x", "patternnet", "pattern_attribution")


def rough(net, x, y):
    """An external method that sums gradients up in the parameters, edits its input and leaves a hook behind."""
    net.register_forward_hook(lambda *_: None)
    x = x.mul_(2).requires_grad_()
    net(x.clone()).gather(1, y[:, None]).sum().backward()
    return x.grad


METHODS = [
    *(small(name) for name in whybox.methods() if name not in OF_ITS_MODEL),
    SmoothGrad(of=IntegratedGradients(steps=2), samples=2),
    SmoothGrad(of=SmoothGrad(samples=2), samples=2),
    External(rough),
]

MODES = {
    "plain": contextlib.nullcontext,
    "no_grad": torch.no_grad,
    "inference": torch.inference_mode,
    "enable_grad": torch.enable_grad,
}


@st.composite
def nets(draw):
    names = draw(st.lists(st.sampled_from(sorted(BLOCKS)), max_size=4))
    error = draw(st.sampled_from([BoomError("boom"), KeyboardInterrupt()]))
    burn = fuse(draw(st.one_of(st.just(-1), st.integers(1, 8))), error)
    net = Net([BLOCKS[name]() for name in names], draw(st.booleans()), burn)
    for part in net.modules():
        part.training = draw(st.booleans())
    for parameter in net.parameters():
        parameter.requires_grad_(draw(st.booleans()))
        if draw(st.booleans()):
            parameter.grad = torch.randn_like(parameter)
    if draw(st.booleans()):
        net.last.register_forward_hook(lambda _m, _i, output: output + 1)
        net.register_forward_pre_hook(lambda _m, given: None)
    return net


@settings(
    max_examples=120,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.generate],  # shrinking would take minutes
)
@given(
    net=nets(),
    method=st.sampled_from(METHODS),
    target=st.sampled_from([None, 0, [1, 2], whybox.Contrast(), whybox.Neuron("last", 1), lambda output: output[:, 0]]),
    at=st.sampled_from([None, None, "last", "nowhere"]),
    seed=st.sampled_from([0, 7, -1, 2**63]),
    chunk=st.sampled_from([None, 1, 2]),
    mode=st.sampled_from(sorted(MODES)),
    needs_grad=st.booleans(),
)
@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_any_run_leaves_everything_as_it_was(net, method, target, at, seed, chunk, mode, needs_grad):
    x = torch.randn(2, CHANNELS, 5, 5, requires_grad=needs_grad)
    if needs_grad:
        x.grad = torch.ones_like(x)
    with MODES[mode]():
        before = of_module(net), of_process(), of_tensor(x)
        with contextlib.suppress(BoomError, KeyboardInterrupt, WhyboxError):
            answer = method.run(Model(net, chunk=chunk), x, target, seed=seed, at=at)
            assert not answer.relevance.requires_grad
        after = of_module(net), of_process(), of_tensor(x)
    assert not differences(before, after)
    assert not whybox.core.guard._states


@pytest.mark.parametrize("error", [BoomError("boom"), KeyboardInterrupt()], ids=["exception", "interrupt"])
@pytest.mark.parametrize("method", METHODS, ids=repr)
def test_an_exception_in_the_first_forwards_passes_through_and_restores(method, error):
    for k in (1, 2, 3):
        net = Net([nn.BatchNorm2d(CHANNELS), Editor(), Awake()], False, fuse(k, error)).train()
        x = torch.randn(2, CHANNELS, 5, 5)
        before = of_module(net), of_process()
        with pytest.raises(type(error)):
            method.run(Model(net, chunk=1), x, None)
        assert not differences(before, (of_module(net), of_process()))


def test_the_generator_of_random_too():
    """In a process of its own, for in the tests beartype draws from it."""
    code = """
import random, torch, whybox
state = random.getstate()
class Net(torch.nn.Module):
    def forward(self, x):
        return x * random.random()
net, x = Net(), torch.ones(2, 3)
same = [whybox.SmoothGrad(samples=2)(net, x, 0, seed=seed) for seed in (1, 1, 2)]
assert torch.equal(same[0], same[1]) and not torch.equal(same[0], same[2])
assert random.getstate() == state
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_pending_graph_of_the_user_is_still_good():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(18, 2)).eval()
    loss = net(torch.randn(3, 1, 5, 5)).sum()  # has saved weights and running statistics
    SmoothGrad(samples=3)(net, torch.randn(2, 1, 5, 5), 0)
    loss.backward()
    assert net[0].weight.grad is not None


def test_eval_mode_while_the_method_runs_and_no_call_of_train():
    modes = []

    class Watch(SideEffect):
        def forward(self, x):
            modes.append(self.training)
            return super().forward(x)

    net = nn.Sequential(Watch(), nn.Dropout(0.5))
    x = torch.randn(2, 3)
    assert torch.equal(Gradient()(net, x, 0), torch.tensor([[1.0, 0, 0], [1, 0, 0]]))  # dropout would scale or zero it
    assert modes
    assert not any(modes)
    assert net.training
    assert net[0].scale.item() == 1


def test_attributes_that_describe_an_exchanged_buffer_go_back_with_it():
    net = nn.Sequential(Exchanger(), nn.Linear(3, 2))
    Gradient()(net, torch.randn(4, 3), 0)
    assert net[0].size == 3 == len(net[0].seen)
    assert not hasattr(net[0], "late")


def test_a_graph_kept_in_an_attribute_does_not_stay():
    keeper = Keeper()
    kept = keeper.kept
    Gradient()(nn.Sequential(keeper, nn.Linear(3, 2)), torch.randn(4, 3), 0)
    assert keeper.kept is kept
    assert not hasattr(keeper, "another")


def test_a_bad_seed_does_not_break_later_runs():
    x, net = torch.randn(2, 3), nn.Linear(3, 2)
    with pytest.raises(TypeError), guard(net, "seven"):
        pass
    before = of_process()
    with guard(net):
        torch.rand(3)
    torch.rand(3)
    with guard(net):
        pass
    now = of_process()
    torch.set_rng_state(torch.get_rng_state())
    assert now["torch"] != before["torch"]  # the draw outside the guards is not taken back
    assert SmoothGrad(samples=2)(net, x, 0).shape == x.shape


def test_a_snapshot_interrupted_while_it_is_taken_restores_and_is_not_used_again(monkeypatch):
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("b", torch.zeros(2))

        def buffers(self, recurse=True):
            raise KeyboardInterrupt

    net = nn.Sequential(nn.Linear(2, 2), Stubborn())
    before = of_module(net), of_process()
    with pytest.raises(KeyboardInterrupt), guard(net):
        pass
    assert not differences(before, (of_module(net), of_process()))
    assert not whybox.core.guard._states


def test_one_module_that_cannot_be_restored_does_not_keep_the_others():
    class Slippery(nn.Linear):
        def __setattr__(self, name, value):
            if name == "training" and value and hasattr(self, "once"):
                raise BoomError("no")
            super().__setattr__(name, value)

    slippery = Slippery(2, 2)
    slippery.once = True
    net = nn.Sequential(nn.Linear(2, 2), slippery, nn.Dropout())
    with pytest.raises(BoomError), guard(net):
        pass
    assert net.training
    assert net[0].training
    assert net[2].training


# Several guards at once.


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
def test_overlapping_guards_in_any_order(order):
    shared = nn.Sequential(nn.BatchNorm1d(3), Editor())
    nets = [nn.Sequential(shared, nn.Linear(3, 2)), nn.Sequential(nn.Linear(3, 3), shared), shared]
    nets[1][0].eval()
    whole = nn.ModuleList(nets)
    before = of_module(whole), of_process()
    guards = [guard(net) for net in nets]
    for g in guards:
        g.__enter__()
    for step, index in enumerate(order):
        shared(torch.randn(4, 3))
        torch.rand(1)
        guards[index].__exit__(None, None, None)
        if step < 2:
            assert not shared.training  # someone still needs it in eval mode
    assert not differences(before, (of_module(whole), of_process()))


def test_nested_guards_restore_at_the_outermost():
    net = nn.Sequential(nn.Linear(3, 3), Editor())
    before = of_module(net), of_process()
    with guard(net, 1):
        first = torch.rand(1)
        with guard(net, 1):
            net(torch.randn(2, 3))
        assert not net.training
        assert net[1].seen[0] == 1  # not yet restored
    assert not differences(before, (of_module(net), of_process()))
    with guard(net, 1):
        assert torch.equal(torch.rand(1), first)


@pytest.mark.parametrize("fails", [False, True])
def test_two_threads_on_one_model_at_once(fails):
    barrier = threading.Barrier(2, timeout=30)

    class Meet(nn.Module):
        def forward(self, x):
            with contextlib.suppress(threading.BrokenBarrierError):
                barrier.wait()
            if fails and threading.current_thread().name == "b":
                barrier.abort()
                raise BoomError("boom")
            return x

    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Dropout(), Editor(), Meet(), nn.Flatten(),
        nn.Linear(27, 4),
    )  # fmt: skip
    net[0].weight.grad = torch.ones_like(net[0].weight)
    inputs = {name: torch.randn(2, 1, 5, 5) for name in "ab"}
    method = SmoothGrad(samples=4)
    alone = {}
    for name, x in inputs.items():
        barrier.abort()
        alone[name] = None if fails and name == "b" else method(Model(net, chunk=2), x, 1, at="2")
    barrier.reset()
    model = Model(net, chunk=2)  # shared, so that chunk sizes are shared too
    before = of_module(net), of_process()
    found, errors = {}, {}

    def explain(name):
        try:
            found[name] = method(model, inputs[name], 1, at="2")
        except BaseException as error:
            errors[name] = error

    threads = [threading.Thread(target=explain, args=(name,), name=name) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not differences(before, (of_module(net), of_process()))
    if fails:
        assert isinstance(errors["b"], BoomError)
        assert torch.equal(found["a"], alone["a"])
    else:
        assert not errors
        assert all(torch.equal(found[name], alone[name]) for name in "ab")


def test_taps_of_one_thread_do_not_see_the_other():
    """Two threads explain at different layers of one model, many times, each as if it were alone."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.ReLU(inplace=True), nn.Conv2d(3, 3, 3), nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 4),
    )  # fmt: skip
    x = torch.randn(3, 1, 8, 8)
    jobs = [
        lambda: whybox.CAM()(net, x, 1),
        lambda: whybox.GradCAM()(net, x[:2], 2),
        lambda: Gradient()(net, x, 0, at="0"),
    ]
    alone = [job() for job in jobs]
    before = of_module(net), of_process()
    wrong = []

    def work(index):
        for _ in range(8):
            try:
                if not torch.allclose(jobs[index](), alone[index], atol=1e-6):
                    wrong.append(index)
            except BaseException as error:
                wrong.append(error)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not wrong
    assert not differences(before, (of_module(net), of_process()))


# Modules that are not plain Python.


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("kind", ["script", "trace", "frozen"])
def test_scripted_modules(kind):
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).eval()
    x = torch.randn(2, 3)
    if kind == "script":
        net = torch.jit.script(plain).train()
    elif kind == "trace":
        net = torch.jit.trace(plain, x)
    else:
        net = torch.jit.freeze(torch.jit.script(plain))
    before = [(name, bits(value)) for name, value in net.named_buffers()]
    mode = getattr(net, "training", None)
    assert torch.allclose(Gradient()(net, x, 1), Gradient()(plain, x, 1), atol=1e-6)
    assert [(name, bits(value)) for name, value in net.named_buffers()] == before
    assert getattr(net, "training", None) == mode
    if kind != "frozen":
        with pytest.raises(whybox.core.errors.ModelError, match=r"scripted.* plain module"):
            Gradient()(net, x, 1, at="0")


@pytest.mark.filterwarnings("ignore")
def test_compiled_modules():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 2)).train()
    net = torch.compile(plain, backend="eager")
    x = torch.randn(2, 3)
    before = of_module(plain)
    assert torch.allclose(Gradient()(net, x, 1), Gradient()(plain, x, 1), atol=1e-6)
    assert torch.allclose(Gradient()(net, x, 1, at="_orig_mod.0"), Gradient()(plain, x, 1, at="0"), atol=1e-6)
    assert not differences(before, of_module(plain))


def test_a_buffer_that_requires_grad_keeps_flag_and_gradient():
    net = nn.Linear(3, 2)
    net.register_buffer("b", torch.ones(2, requires_grad=True))
    net.b.grad = torch.ones(2)
    before = of_buffer(net.b)
    External(lambda m, x, y: (m(x) * m.b).sum().backward() or x)(net, torch.randn(2, 3), 0)
    assert of_buffer(net.b) == before
