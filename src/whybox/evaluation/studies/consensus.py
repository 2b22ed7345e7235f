"""Consensus: what many models look at, and how far each model's explanation agrees with it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from whybox.core.errors import InputError
from whybox.core.method import Method
from whybox.core.model import Model
from whybox.core.tree import Inputs
from whybox.evaluation.controls import controls_for
from whybox.evaluation.places import all_places
from whybox.evaluation.similarity import correlation
from whybox.evaluation.studies.study import Findings, Study, with_controls


@dataclass(frozen=True)
class Consensus(Study):
    """cos(R_m, C) with C = mean over the models m of R_m / ‖R_m‖: how far each model's map is that of the committee.

    Rows: of each method and model the mean over the samples of that `consensus`; of the rank correlation with the maps
    of the `others`, in which the model's own map has no part; and how many maps are `undefined`, zero everywhere.
    Details: `consensus` by method, (models, n), in the order of the models; `chance`: the consensus of unrelated maps,
    about 1/√models.
    Cost: each method once for each model.
    Limits: a method that ignores the models, as the controls do, has full consensus; models may agree in being wrong.
    Source: Li, Xiong, Li, Ji & Dou 2021, arXiv 2109.00707.
    """

    def run(
        self,
        models: Mapping[str, nn.Module | Model],
        inputs: Inputs,
        target: Any,
        methods: Sequence[Method | str],
        *,
        seed: int = 0,
    ) -> Findings:
        """Answer for these methods and the controls.

        Args:
            models: at least two models of the same task, by name; they are left as they were.
            inputs: what is explained, batch first.
            target: what is explained of every model, such as the class of each input.
            methods: methods or their names.
            seed: of the methods.
        """
        if len(models) < 2:
            raise InputError("a consensus is one of several models: give at least two, by name")
        if target is None:
            raise InputError("the models may predict different classes: say with target= which one is explained")
        rows, scores = [], {}
        for title, method in with_controls(methods, controls_for(inputs)).items():
            maps = torch.stack(
                [all_places(method(model, inputs, target, seed=seed), inputs) for model in models.values()]
            )
            units = maps / maps.norm(dim=2, keepdim=True)  # NaN for a map that is zero everywhere: no vote
            committee = units.nanmean(0)
            scores[title] = (units * committee).sum(2) / committee.norm(dim=1)
            for m, name in enumerate(models):
                others = [correlation(maps[m], maps[k]) for k in range(len(models)) if k != m]
                rows.append(
                    {
                        "method": title,
                        "model": name,
                        "consensus": float(scores[title][m].nanmean()),
                        "others": float(torch.stack(others).nanmean()),
                        "undefined": int(scores[title][m].isnan().sum()),
                    }
                )
        return Findings(rows, {"consensus": scores, "chance": len(models) ** -0.5})
