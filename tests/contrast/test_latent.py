"""Latent: what it decodes, finds and keeps, against generators of which the answers are known."""

import copy
import pickle

import pytest
import torch
from jaxtyping import TypeCheckError
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from whybox.contrast.latent import Latent
from whybox.contrast.latent.nets import Plan
from whybox.core.errors import CheckpointError, InputError, ModelError


class Swirl(nn.Module):
    """A known surface: two numbers onto a curved sheet in six dimensions."""

    def forward(self, z):
        u, v = z.unbind(1)
        return torch.stack((u, v, (2 * u).sin(), (2 * v).cos(), u * v / 2, (u + v).sin()), 1)


def built(plan, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Latent(plan.generator(), plan.size, plan.encoder(), plan.critic(), plan=plan)


PLAN = Plan((1, 6, 8), 4, (8, 4))


def test_inversion_of_a_linear_generator_is_least_squares(rng):
    """Also where the answer is far out: nothing holds it near the origin."""
    generator = nn.Linear(3, 7).double()
    x = torch.randn(20, 7, generator=rng, dtype=torch.float64)
    x[0] = generator(torch.tensor([[4.0, -4.0, 3.0]], dtype=torch.float64))
    expected = torch.linalg.lstsq(generator.weight, (x - generator.bias).T).solution.T
    z = Latent.of(generator, 3).invert(x, steps=400, restarts=4)
    assert torch.allclose(z, expected, atol=2e-3)


def test_inversion_recovers_points_on_a_known_surface(rng):
    z = torch.randn(30, 2, generator=rng)
    latent = Latent.of(Swirl(), 2)
    x = latent.decode(z)
    found = latent.invert(x)
    assert torch.allclose(found, z, atol=2e-2)
    assert latent.distance(x, found).max() < 1e-2


def test_what_lies_off_the_surface_is_recognised(rng):
    """Against training data that lie around the surface; others of their kind stay among them."""

    def around(n):
        x = Swirl()(torch.randn(n, 2, generator=rng))
        return x + 0.05 * torch.randn(x.shape, generator=rng)

    latent = Latent.of(Swirl(), 2, data=around(200))
    assert latent.spread.shape == (101,)
    known, strange = around(100), around(100)
    strange[:, 2] += 1.5
    share_known, share_strange = (latent.share_nearer(latent.distance(x, latent.invert(x))) for x in (known, strange))
    assert 0.3 < share_known.mean() < 0.7
    assert (share_known == 1).float().mean() <= 0.05
    assert (share_strange == 1).float().mean() >= 0.95


def test_shares_are_those_of_the_sorted_distances():
    spread = torch.linspace(1, 3, 101)
    latent = Latent(nn.Linear(2, 3), 2, spread=spread)
    found = latent.share_nearer(torch.tensor([0.5, 1.0, 2.0, 2.5, 3.0, 9.0]))
    assert torch.allclose(found, torch.tensor([0.0, 0.0, 0.5, 0.75, 1.0, 1.0]))
    assert Latent.of(nn.Linear(2, 3), 2).share_nearer(torch.ones(2)).isnan().all()


def test_a_sample_alone_gives_what_it_gives_in_a_batch():
    latent = built(PLAN)
    x = torch.rand(5, 1, 6, 8, generator=torch.Generator().manual_seed(1))
    together = latent.invert(x, steps=20, restarts=3, seed=4)
    alone = latent.invert(x[:1], steps=20, restarts=3, seed=4)
    assert torch.allclose(alone, together[:1], atol=1e-6)
    assert torch.equal(together, latent.invert(x, steps=20, restarts=3, seed=4))
    assert not torch.equal(together, latent.invert(x, steps=20, restarts=3, seed=5))


def test_the_encoder_is_one_of_the_starts():
    latent = built(PLAN)
    x = torch.rand(4, 1, 6, 8, generator=torch.Generator().manual_seed(1))
    assert torch.equal(latent.invert(x, steps=0, restarts=1), latent.encode(x))
    without = Latent.of(latent.generator, 4)
    assert without.invert(x, steps=2).shape == (4, 4)
    with pytest.raises(InputError, match="no encoder"):
        without.encode(x)
    with pytest.raises(InputError, match="no critic"):
        without.realism(x)


def test_more_steps_and_starts_are_never_worse():
    latent = built(PLAN)
    x = torch.rand(6, 1, 6, 8, generator=torch.Generator().manual_seed(1))
    near = [latent.distance(x, latent.invert(x, steps=s, restarts=r)) for s, r in ((0, 1), (0, 8), (40, 8))]
    assert (near[1] <= near[0]).all()
    assert (near[2] <= near[1]).all()


def test_decoding_is_the_same_each_time_and_row_by_row():
    latent = built(PLAN)
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    x = latent.decode(z)
    assert x.shape == (6, 1, 6, 8)
    assert torch.equal(x, latent.decode(z))
    assert torch.allclose(x[2:3], latent.decode(z[2:3]), atol=1e-6)


def test_a_given_generator_is_copied_and_never_changed():
    generator = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4))
    before = copy.deepcopy(generator.state_dict())
    latent = Latent.of(generator, 2)
    latent.invert(torch.randn(3, 4), steps=3)
    latent.decode(torch.randn(3, 2, requires_grad=True)).sum().backward()
    assert generator.training
    assert all(p.requires_grad and p.grad is None for p in generator.parameters())
    assert all(torch.equal(value, before[name]) for name, value in generator.state_dict().items())
    assert not any(part.training or p.requires_grad for part in latent.generator.modules() for p in part.parameters())
    x = latent.decode(torch.ones(1, 2))
    with torch.no_grad():
        generator[0].weight.zero_()
    assert torch.equal(x, latent.decode(torch.ones(1, 2)))


def test_equal_where_the_nets_are(tmp_path):
    one, same, other = built(PLAN), built(PLAN), built(PLAN, seed=1)
    assert one == same
    assert hash(one) == hash(same)
    assert one != other
    assert one.digest != Latent(one.generator, 4, plan=PLAN).digest  # without encoder and critic
    one.save(tmp_path / "one.latent")
    read = Latent.load(tmp_path / "one.latent")
    assert read == one
    assert read.plan == PLAN
    assert pickle.loads(pickle.dumps(one)) == one
    assert one.to(torch.float64).decode(torch.zeros(1, 4, dtype=torch.float64)).dtype == torch.float64
    assert one.config() == {"name": "latent", "digest": one.digest}


def test_pictures_that_do_not_fit_are_padded_and_cropped():
    plan = Plan((2, 6, 7), 3, (8, 4))
    generator = plan.generator()
    assert plan.canvas == (8, 8)
    x = torch.rand(2, 2, 6, 7)
    inside = generator.frame.inwards(x)
    assert inside.shape == (2, 2, 8, 8)
    assert torch.equal(generator.frame.outwards(inside), x)
    assert torch.equal(inside[:, :, 0, :7], x[:, :, 0])  # the edge's values
    assert torch.equal(inside[:, :, 1:7, 7], x[:, :, :, 6])


def test_the_range_of_pictures_and_the_scale_of_columns_are_taken_from_the_data(rng):
    frame = Plan((1, 4, 4), 3, (4,)).generator().frame
    frame.measure(torch.rand(10, 1, 4, 4, generator=rng) * 6 - 2)
    low, high = frame.inwards(torch.tensor([[[[-2.0, 4.0, 1.0, 1.0]] * 4]]))[0, 0, 0, :2].tolist()
    assert (low, high) == pytest.approx((-1, 1), abs=0.05)
    frame = Plan((3,), 2, (4,)).generator().frame
    data = torch.randn(500, 3, generator=rng) * torch.tensor([2.0, 0.0, 5.0]) + 7
    frame.measure(data)
    inside = frame.inwards(data)
    assert torch.allclose(inside.mean(0), torch.zeros(3), atol=1e-4)
    assert torch.allclose(inside.std(0), torch.tensor([1.0, 0.0, 1.0]), atol=1e-4)
    assert torch.allclose(frame.outwards(inside), data, atol=1e-4)


def damaged(path, how):
    content = bytearray(path.read_bytes())
    if how == "cut":
        content = content[: len(content) // 2]
    elif how == "empty":
        content = bytearray()
    elif how == "one bit":
        content[-5] ^= 4
    else:
        content[20] ^= 255
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["cut", "empty", "one bit", "header"])
def test_a_damaged_file_is_recognised(tmp_path, how):
    path = tmp_path / "x.latent"
    built(PLAN).save(path)
    damaged(path, how)
    with pytest.raises(CheckpointError, match="damaged"):
        Latent.load(path)


def test_a_file_that_is_something_else(tmp_path):
    with pytest.raises(CheckpointError, match="no file"):
        Latent.load(tmp_path / "absent.latent")
    save_file({"x": torch.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(CheckpointError, match="no latent model"):
        Latent.load(tmp_path / "weights.safetensors")
    built(PLAN).save(tmp_path / "x.latent")
    with safe_open(tmp_path / "x.latent", "pt") as file:
        assert file.metadata()["whybox"]


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(InputError, match="no code"):
        Latent.of(nn.Linear(2, 3), 2).save(tmp_path / "x.latent")
    with pytest.raises(InputError, match="cannot write"):
        built(PLAN).save(tmp_path / "absent" / "x.latent")


class Noisy(nn.Module):
    def forward(self, z):
        return z + torch.randn_like(z)


class Detached(nn.Module):
    def forward(self, z):
        return z.detach() * 2


class Two(nn.Module):
    def forward(self, z):
        return z, z


@pytest.mark.parametrize(
    ("generator", "says"),
    [
        (nn.Linear(5, 3), "fails on latent points"),
        (Noisy(), "another sample each time"),
        (Detached(), "gradients"),
        (Two(), "one sample for each"),
        (nn.Flatten(0), "one sample for each"),
    ],
)
def test_generators_that_are_none(generator, says):
    with pytest.raises(ModelError, match=says):
        Latent.of(generator, 2)


def test_a_function_is_no_generator():
    with pytest.raises((InputError, TypeCheckError), match="Module"):  # the latter where annotations are checked
        Latent(torch.sin, 2)


def test_bad_input():
    latent = built(PLAN)
    x = torch.rand(2, 1, 6, 8)
    with pytest.raises(InputError, match="shape"):
        latent.invert(torch.rand(2, 1, 8, 8))
    with pytest.raises(InputError, match="finite"):
        latent.invert(x / 0)
    with pytest.raises(InputError, match="at least one start"):
        latent.invert(x, restarts=0)
