"""DataRandomisation: an explanation that is the same for a model that learned noise does not show what is learned."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from whybox.core.method import Method
from whybox.core.start import started
from whybox.core.tree import Inputs
from whybox.evaluation.case import Samples
from whybox.evaluation.controls import controls_for
from whybox.evaluation.likeness import likeness, read
from whybox.evaluation.places import all_places
from whybox.evaluation.similarity import Similarity
from whybox.evaluation.studies.study import (
    Data,
    Findings,
    Fit,
    Study,
    accuracy,
    check_data,
    mean_of,
    predicted,
    with_controls,
)


@dataclass(frozen=True)
class DataRandomisation(Study):
    """ρ(R, R′) of the maps for a model trained on the true labels and for one trained on shuffled ones: low is good.

    Both are explained for the class that the first predicts.
    Rows: of each method, and of the controls, the mean `signed`, `absolute` and `foreground` likeness over the
    samples, and how many are `undefined`: one of the maps is the same everywhere.
    Details: the likeness of each sample by method, and the share of the labels it was trained on that each model
    predicts, `accuracy` and `accuracy_shuffled`: a model that has not memorised says little.
    Cost: two trainings, and each method twice.
    Limits: as for `MPRT`: noise in the map alone lowers ρ.
    Source: Adebayo, Gilmer, Muelly, Goodfellow, Hardt & Kim 2018, arXiv 1810.03292.

    Args:
        similarity: ρ, over the positions, the channels summed.
    """

    similarity: Similarity = "spearman"

    def run(self, fit: Fit, train: Data, inputs: Inputs, methods: Sequence[Method | str], *, seed: int = 0) -> Findings:
        """Answer for these methods and the controls.

        Args:
            fit: trains a model: `fit(inputs, labels, seed)`, until it knows the labels by heart.
            train: inputs, batch first, and the class of each.
            inputs: what is explained, not among the training data.
            methods: methods or their names.
            seed: of the trainings, of the shuffle and of the methods.
        """
        check_data(train, "training")
        order = torch.randperm(len(train[1]), generator=torch.Generator().manual_seed(seed)).to(train[1].device)
        shuffled = train[0], train[1][order]
        models = [fit(data[0].clone(), data[1].clone(), seed) for data in (train, shuffled)]
        target = predicted(models[0], inputs)
        rows, details = [], {}
        with started(models[0], inputs, target, differentiable=False) as task:
            samples = Samples(task)
            for title, method in with_controls(methods, controls_for(inputs)).items():
                maps = (all_places(method(model, inputs, target, seed=seed), inputs) for model in models)
                first, second = (read(samples, map, self.similarity) for map in maps)
                found = details[title] = likeness(first, second)
                rows.append({"method": title, **mean_of(found._asdict()), "undefined": int(found.signed.isnan().sum())})
        known = [accuracy(model, data) for model, data in zip(models, (train, shuffled), strict=True)]
        return Findings(rows, {"likeness": details, "accuracy": known[0], "accuracy_shuffled": known[1]})
