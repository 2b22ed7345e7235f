"""Shapley values: how far each estimator is from the exact ones after 100, 300 and 1,000 evaluations.

The games are those of games.py, of which every coalition is known: estimators look scores up, so that many can be
tried at many budgets and seeds without asking a model. Each gets the largest setting with which it asks no more often
than the budget says, counted.
"""

import contextlib
import io
import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import shap
import torch
from captum import attr
from torch import Tensor

from benchmarks.games import PICTURES, REGIONS, Game, games
from benchmarks.measure import one_thread, save
from benchmarks.subjects import SUBJECTS
from whybox import KernelSHAP, ShapleySampling
from whybox.attribution.perturbation.kriging import predicted

BUDGETS = (100, 300, 1000)
SEEDS = 10
HERE, NOTHING = torch.ones(1, REGIONS), torch.zeros(1, REGIONS)
BITS = (torch.arange(2**REGIONS)[:, None] >> torch.arange(REGIONS)) & 1 == 1

Estimator = Callable[[Game, int, int], Any]


def main() -> None:
    """Measure both models."""
    one_thread()
    results = {name: measure(games(name)) for name in SUBJECTS}
    settings = {
        "regions": REGIONS,
        "pictures": PICTURES,
        "seeds": SEEDS,
        "budgets": BUDGETS,
        "pixels": {"SqueezeNet": 128, "ResNet-20": 32},
        "shap": f"{shap.__version__}; KernelExplainer with l1_reg=False, as its default leaves regions out",
        "error": "root mean square over regions, pictures and seeds, each picture's relative to that of its values",
    }
    save("shapley", settings, results)


def measure(tables: list[Tensor]) -> dict[str, Any]:
    """The error and the evaluations of each estimator at each budget."""
    return {name: {str(budget): error(name, tables, budget) for budget in BUDGETS} for name in ESTIMATORS}


def error(name: str, tables: list[Tensor], budget: int) -> dict[str, float]:
    """The relative error over all pictures and seeds, and how often the model was asked at most."""
    squares, asked = [], 0
    for table in tables:
        truth = exact(table)
        for seed in range(SEEDS):
            game = Game(table)
            torch.manual_seed(seed)
            np.random.seed(seed)
            with contextlib.redirect_stderr(io.StringIO()), warnings.catch_warnings():
                warnings.simplefilter("ignore")
                values = torch.as_tensor(ESTIMATORS[name](game, budget, seed)).double().flatten()
            squares.append(float((values - truth).square().mean() / truth.square().mean()))
            asked = max(asked, len(game.asked))
    assert asked <= budget, f"{name} asks {asked} times, more than {budget}"
    return {"error": math.sqrt(sum(squares) / len(squares)), "evaluations": asked}


def exact(table: Tensor) -> Tensor:
    """The Shapley values, from the definition."""
    weight = torch.tensor([1 / REGIONS / math.comb(REGIONS - 1, size) for size in range(REGIONS)], dtype=torch.float64)
    values = []
    for region in range(REGIONS):
        without = torch.where(~BITS[:, region])[0]
        gain = table[without + (1 << region)] - table[without]
        values.append((weight[BITS[without].sum(1)] * gain).sum())
    return torch.stack(values)


# --- The estimators


def kernel_shap(game: Game, budget: int, seed: int) -> Tensor:
    """whybox's."""
    return KernelSHAP(samples=budget).run(game, HERE, 0, seed=seed).details["values"]


def shapley_sampling(game: Game, budget: int, seed: int) -> Tensor:
    """whybox's."""
    return ShapleySampling(samples=budget).run(game, HERE, 0, seed=seed).details["values"]


def least_squares(game: Game, budget: int, seed: int) -> Tensor:
    """KernelSHAP's coalitions, but the original's weighted least squares; weights corrected for how many were asked."""
    kernel_shap(game, budget, seed)
    kept = BITS[game.asked][2:].double()
    size = kept.sum(1)
    weight = 1 / (size * (REGIONS - size) * torch.bincount(size.long())[size.long()])
    whole = game.table[-1] - game.table[0]
    gain = game.table[game.asked][2:] - game.table[0] - size / REGIONS * whole
    design = (kept - size[:, None] / REGIONS) * weight.sqrt()[:, None]
    fitted = torch.linalg.lstsq(design, gain * weight.sqrt(), driver="gelsd").solution
    return fitted - fitted.mean() + whole / REGIONS


def kriging_of_orders(game: Game, budget: int, seed: int) -> Tensor:
    """ShapleySampling's coalitions, but KernelSHAP's estimate from them."""
    shapley_sampling(game, budget, seed)
    last = 2**REGIONS - 1
    numbers = torch.tensor(sorted({max(number, last - number) for number in game.asked}, reverse=True))
    return predicted(BITS[numbers], (game.table[numbers] - game.table[last - numbers]) / 2)[0]


def lookup(game: Game) -> Callable[[np.ndarray], np.ndarray]:
    """The game as a function of arrays."""
    return lambda kept: game(torch.from_numpy(np.asarray(kept)))[:, 0].numpy()


def shap_kernel(game: Game, budget: int, seed: int) -> Any:
    """shap's KernelExplainer, which asks about nothing and all besides, and once to see what comes out."""
    explainer = shap.KernelExplainer(lookup(game), NOTHING.numpy())
    return explainer.shap_values(HERE.numpy(), nsamples=budget - len(game.asked) - 1, l1_reg=False, silent=True)


def shap_permutation(game: Game, budget: int, seed: int) -> Any:
    """shap's PermutationExplainer: pairs of orders."""
    explainer = shap.PermutationExplainer(lookup(game), NOTHING.numpy(), seed=seed)
    return explainer(HERE.numpy(), max_evals=budget - len(game.asked), silent=True).values


def shap_sampling(game: Game, budget: int, seed: int) -> Any:
    """shap's SamplingExplainer, which spends more where the variance is larger, two looks a sample."""
    explainer = shap.SamplingExplainer(lookup(game), NOTHING.numpy())
    return explainer.shap_values(HERE.numpy(), nsamples=(budget - len(game.asked)) // 2, silent=True)


def captum_kernel(game: Game, budget: int, seed: int) -> Tensor:
    """Captum's KernelShap."""
    return attr.KernelShap(game).attribute(HERE, NOTHING, 0, n_samples=budget - 1, perturbations_per_eval=budget)


def captum_sampling(game: Game, budget: int, seed: int) -> Tensor:
    """Captum's ShapleyValueSampling: single orders, each of which asks once for every region."""
    return attr.ShapleyValueSampling(game).attribute(
        HERE, NOTHING, 0, n_samples=(budget - 2) // REGIONS, perturbations_per_eval=REGIONS
    )


ESTIMATORS: dict[str, Estimator] = {
    "whybox KernelSHAP": kernel_shap,
    "whybox ShapleySampling": shapley_sampling,
    "shap KernelExplainer": shap_kernel,
    "shap PermutationExplainer": shap_permutation,
    "shap SamplingExplainer": shap_sampling,
    "Captum KernelShap": captum_kernel,
    "Captum ShapleyValueSampling": captum_sampling,
    "KernelSHAP with weighted least squares": least_squares,
    "ShapleySampling's coalitions, KernelSHAP's estimate": kriging_of_orders,
}

if __name__ == "__main__":
    main()
