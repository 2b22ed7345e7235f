"""The optimiser on problems whose answers are known, and against scipy's SLSQP from the same starts."""

import itertools

import numpy
import pytest
import torch
from plain_problems import Plain, mlp, normal
from scipy.optimize import minimize

from whybox.contrast.constrained import STEPS, search
from whybox.contrast.record import DIVERGED, NOT_FOUND, NOT_SETTLED, SOLVED


def solve(problem, z0, *, rounds=25, waves=(1,)):
    return search(problem.ask, z0, z0[:, None].clone(), tolerance=0.02, rounds=rounds, waves=waves)


def linear(classes: int, d: int, seed: int, samples: int):
    """s = A z + b with class 0 the most likely at every z0 and class 1 next to it."""
    a, b, z0 = normal(classes, d, seed=seed), normal(classes, seed=seed + 100), normal(samples, d, seed=seed + 200)
    order = (z0 @ a.T + b).argsort(dim=1, descending=True)
    return Plain(lambda z, sample: (z @ a.T + b).gather(1, order[sample])), a, b, order, z0


def projected(a, b, z0, margin=0.0):
    """The nearest point with s₀ = s₁ ≥ all others + margin, by trying every set of others that may tie with them."""
    best = None
    others = range(2, len(a))
    for count in range(min(len(a) - 2, len(z0) - 1) + 1):
        for tied in itertools.combinations(others, count):
            rows = numpy.array([a[0] - a[1], *(a[i] - a[0] for i in tied)])
            gaps = numpy.array([b[1] - b[0], *(b[0] - b[i] - margin for i in tied)])
            step = numpy.linalg.lstsq(rows, gaps - rows @ z0, rcond=None)[0]
            z = z0 + step
            s = a @ z + b
            if abs(s[0] - s[1]) < 1e-9 and all(s[i] + margin <= s[0] + 1e-9 for i in others):
                best = z if best is None or numpy.sum(step**2) < numpy.sum((best - z0) ** 2) else best
    return best


class TestLinear:
    def test_without_others_it_is_the_foot_of_the_perpendicular(self):
        problem, a, b, order, z0 = linear(2, 6, 0, 9)
        record = solve(problem, z0)
        normals = a[order[:, 0]] - a[order[:, 1]]
        gap = (normals * z0).sum(1) + b[order[:, 0]] - b[order[:, 1]]
        foot = z0 - (gap / normals.square().sum(1))[:, None] * normals
        torch.testing.assert_close(record.z, foot, rtol=0, atol=1e-9)
        assert (record.status == SOLVED).all()
        near = record.distance < 6**0.5 / 2
        assert record.forwards[near].tolist() == [2] * 6  # z0 and the answer, which is reached in one step
        assert (record.forwards <= 4).all()  # longer steps are cut
        torch.testing.assert_close(record.distance, gap.abs() / normals.norm(dim=1))

    @pytest.mark.parametrize("margin", [0.0, 0.3])
    def test_with_others_it_is_the_projection_on_the_polytope(self, margin):
        """Among these are samples with no to three inequalities that are active."""
        problem, a, b, order, z0 = linear(5, 8, 3, 40)
        problem.margin, problem.probe = margin, 4
        record = solve(problem, z0)
        assert (record.status == SOLVED).all()
        active = []
        for i in range(len(z0)):
            classes = order[i][[0, 4, 1, 2, 3]]
            best = projected(a[classes].numpy(), b[classes].numpy(), z0[i].numpy(), margin)
            numpy.testing.assert_allclose(record.z[i].numpy(), best, atol=1e-6)
            s = a[classes] @ record.z[i] + b[classes]
            active.append(int((s[2:] + margin > s[0] - 1e-6).sum()))
        assert set(active) >= {0, 1, 2, 3}
        assert record.forwards.max() <= 6

    def test_the_augmented_lagrangian_alone_comes_near(self):
        problem, *_, z0 = linear(4, 6, 5, 8)
        record, exact = solve(problem, z0, waves=()), solve(problem, z0)
        assert (record.status <= NOT_SETTLED).all()
        assert (record.violation < 0.02).all()
        assert ((record.z - exact.z).norm(dim=1) <= 0.05 + 0.1 * exact.distance).all()
        assert record.forwards.tolist() == [25 * (STEPS + 1)] * 8

    def test_a_start_that_solves_it_already_stays(self):
        problem, *_, z0 = linear(2, 5, 1, 4)
        tie = solve(problem, z0).z
        record = solve(problem, tie)
        assert (record.distance < 1e-9).all()
        assert (record.forwards == 1).all()


class TestThirdClass:
    """s₀ = x, s₁ = −x, s₂ = 1 − y: on the nearest tie the third class is the strongest, unless y ≥ 1."""

    problem = Plain(lambda z, _: torch.stack((z[:, 0], -z[:, 0], 1 - z[:, 1]), 1))
    z0 = torch.tensor([[2.0, 0.0]], dtype=torch.float64)

    def test_the_contrast_goes_around_it(self):
        record = solve(self.problem, self.z0)
        torch.testing.assert_close(record.z, torch.tensor([[0.0, 1.0]], dtype=torch.float64), rtol=0, atol=1e-3)

    def test_with_the_tie_alone_it_takes_over(self):
        alone = Plain(lambda z, _: torch.stack((z[:, 0], -z[:, 0]), 1))
        found = solve(alone, self.z0).z
        torch.testing.assert_close(found, torch.zeros(1, 2, dtype=torch.float64), rtol=0, atol=1e-9)
        assert self.problem.scores(found, None).argmax() == 2


class TestNothingToFind:
    def test_classes_that_never_tie(self):
        problem = Plain(lambda z, _: torch.stack((1 + z.square().sum(1), torch.zeros(len(z), dtype=z.dtype)), 1))
        record = solve(problem, normal(3, 4), rounds=3)
        assert (record.status == NOT_FOUND).all()
        assert (record.violation >= 1).all()

    def test_inequalities_that_contradict_the_tie(self):
        """The third class is always above the mean of the two others."""
        problem = Plain(lambda z, _: torch.stack((z[:, 0], z[:, 1], (z[:, 0] + z[:, 1]) / 2 + 0.5), 1))
        record = solve(problem, normal(3, 4), rounds=3)
        assert (record.status == NOT_FOUND).all()
        assert (record.violation >= 0.5 - 1e-9).all()

    def test_the_others_of_the_batch_are_solved_all_the_same(self):
        """Sample 1 can never tie."""

        def scores(z, sample):
            never = (sample == 1).double()
            return torch.stack((z[:, 0] + never * (1 + z[:, 0].square()), torch.zeros_like(z[:, 0])), 1)

        record = solve(Plain(scores), normal(3, 4), rounds=2)
        assert record.status.tolist() == [SOLVED, NOT_FOUND, SOLVED]
        assert record.forwards[1] > 32
        assert (record.forwards[[0, 2]] <= 10).all()

    def test_scores_that_are_not_finite(self):
        problem = Plain(lambda z, _: torch.stack((z[:, 0], z[:, 1] / 0.0), 1))
        record = solve(problem, normal(2, 3), rounds=2)
        assert (record.status == DIVERGED).all()

    def test_no_slope_at_all(self):
        problem = Plain(lambda z, _: torch.stack((0 * z[:, 0] + 1, 0 * z[:, 0]), 1))
        record = solve(problem, normal(2, 3), rounds=2)
        assert (record.status == NOT_FOUND).all()
        assert torch.isfinite(record.z).all()


def nonlinear(seed: int, d: int = 8, samples: int = 16, margin: float = 0.05):
    """An MLP of an MLP with six classes, in the order of their scores at z0."""
    generator, net = mlp((d, 32, 24), seed), mlp((24, 32, 6), seed + 50, 2.0)
    z0 = normal(samples, d, seed=seed + 9)
    order = net(generator(z0)).detach().argsort(dim=1, descending=True)
    return Plain(lambda z, sample: net(generator(z)).gather(1, order[sample]), margin=margin), z0


def slsqp(problem, z0, sample):
    """scipy's answer from z0: squared distance, or None where it fails."""

    def constraints(z):
        z = torch.as_tensor(z)[None].requires_grad_()
        return problem.values(problem.scores(z, torch.tensor([sample])))[0], z

    def value(z):
        return constraints(z)[0].detach().numpy()

    def slope(z):
        values, z = constraints(z)
        return numpy.stack([torch.autograd.grad(v, z, retain_graph=True)[0][0].numpy() for v in values])

    def both(v):
        return -numpy.concatenate((v[1:], v[1:] + v[:1]))

    best = minimize(
        lambda z: ((z - z0) ** 2).sum(),
        z0,
        jac=lambda z: 2 * (z - z0),
        constraints=[
            {"type": "eq", "fun": lambda z: value(z)[:1], "jac": lambda z: slope(z)[:1]},
            {"type": "ineq", "fun": lambda z: both(value(z)), "jac": lambda z: both(slope(z))},
        ],
        options={"maxiter": 300},
    )
    return best.fun if best.success else None


class TestNonlinear:
    @pytest.mark.parametrize("seed", [0, 1, 2])
    def test_as_near_as_scipy_from_the_same_start(self, seed):
        problem, z0 = nonlinear(seed)
        record = solve(problem, z0)
        assert (record.status == SOLVED).all()
        assert (record.violation <= 0.02).all()
        scipys = [slsqp(problem, z0[i].numpy(), i) for i in range(len(z0))]
        compared = [(float(d) ** 2, best) for d, best in zip(record.distance, scipys, strict=True) if best is not None]
        assert len(compared) >= 14
        assert all(ours <= best * 1.001 for ours, best in compared)
        assert record.forwards.double().median() < 15

    def test_a_sample_alone_is_as_in_the_batch(self):
        problem, z0 = nonlinear(1, samples=6)
        together = solve(problem, z0)
        for i in range(6):
            one = Plain(lambda z, _, i=i: problem.scores(z, torch.full((len(z),), i)), margin=problem.margin)
            alone = solve(one, z0[i : i + 1])
            torch.testing.assert_close(alone.z[0], together.z[i], rtol=1e-6, atol=1e-8)
            assert alone.forwards[0] == together.forwards[i]

    def test_at_most_a_fifth_of_the_plain_search_at_no_worse_a_distance(self):
        problem, z0 = nonlinear(2)
        ours, plain = solve(problem, z0), solve(problem, z0, waves=())
        assert 5 * (ours.forwards + ours.backwards).sum() < (plain.forwards + plain.backwards).sum()
        both = (plain.status <= NOT_SETTLED) & (ours.status == SOLVED)
        assert ours.distance[both].median() <= plain.distance[both].median()

    def test_all_that_is_asked_is_counted(self):
        problem, z0 = nonlinear(0, samples=5)
        record = solve(problem, z0)
        assert int(record.forwards.sum()) == problem.asked

    def test_what_was_told_of_each_iteration(self):
        problem, z0 = nonlinear(0, samples=5)
        record = solve(problem, z0)
        told = record.told()
        assert told.shape == (5, int(record.forwards.max()), 2)
        assert (~told.isnan()).all(2).sum(1).tolist() == record.forwards.tolist()
        begin = problem.scores(z0, torch.arange(5)).log_softmax(1)[:, :2].detach()
        torch.testing.assert_close(told[:, 0], begin)


class TestStarts:
    def test_all_of_a_wave_are_searched_each_by_itself(self):
        problem, z0 = nonlinear(2, samples=5)
        starts = z0[:, None] + 0.5 * normal(5, 3, 8, seed=4) * torch.tensor([0.0, 1, 1]).double()[:, None]
        record = search(problem.ask, z0, starts, tolerance=0.02, rounds=1, waves=(3,))
        assert (record.forwards > 0).all()
        settled = record.status[::3] == SOLVED
        assert settled.sum() >= 4
        torch.testing.assert_close(record.z[::3][settled], solve(problem, z0).z[settled], rtol=1e-6, atol=1e-8)
        assert (record.sample == torch.arange(5).repeat_interleave(3)).all()

    def test_the_next_wave_is_for_those_without_an_answer(self):
        """From 0 the slope is 0; the second start is beyond that."""

        def scores(z, sample):
            stuck = (sample == 1).double()
            fall = (1 - stuck) * z[:, 0] + stuck * (1 - z[:, 0].clamp_min(0.5))
            return torch.stack((fall, torch.zeros_like(fall)), 1)

        z0 = torch.tensor([[0.4, 0.0], [0.0, 0.0]], dtype=torch.float64)
        starts = torch.stack((z0, z0 + torch.tensor([0.8, 0.0]).double()), 1)
        record = search(Plain(scores).ask, z0, starts, tolerance=0.02, rounds=1, waves=(1, 1))
        assert record.status.tolist() == [SOLVED, NOT_FOUND, NOT_FOUND, SOLVED]
        assert record.forwards[1] == 0
        torch.testing.assert_close(record.z[[0, 3], 0], torch.tensor([0.0, 1.0]).double(), rtol=0, atol=1e-6)

    @pytest.mark.parametrize("order", [[0, 1, 2], [2, 1, 0], [1, 2, 0]])
    def test_an_early_end_leaves_the_nearest(self, order):
        """The classes tie at −1, 3 and 4: a start beside one of the farther ties leaves off once the first settles."""

        def scores(z, _):
            fall = (z[:, 0] + 1) * (z[:, 0] - 3) * (z[:, 0] - 4)
            return torch.stack((fall, torch.zeros_like(fall)), 1)

        z0, begins = torch.zeros(1, 1).double(), torch.tensor([[[-0.5], [3.2], [4.6]]]).double()
        record = search(Plain(scores).ask, z0, begins[:, order], tolerance=1e-6, rounds=1, waves=(3,))
        near = order.index(0)
        assert record.status[near] == SOLVED
        assert int(record.distance.argmin()) == near
        torch.testing.assert_close(record.z[near], torch.tensor([-1.0]).double(), rtol=0, atol=1e-6)
