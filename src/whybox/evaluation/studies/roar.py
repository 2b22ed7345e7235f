"""ROAR: remove and retrain."""

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from whybox.core.errors import InputError
from whybox.core.method import Attribution, Method
from whybox.core.model import Model
from whybox.core.regions import Pixels
from whybox.core.start import started
from whybox.evaluation.case import Samples
from whybox.evaluation.controls import RandomMap
from whybox.evaluation.metric import case
from whybox.evaluation.removal import Ranks
from whybox.evaluation.studies.study import Data, Findings, Fit, Study, accuracy, check_data, with_controls


@dataclass(frozen=True)
class ROAR(Study):
    """Accuracy of models trained and tested without the most relevant share of each input: low where it was needed.

    A model is trained; the method explains what it predicts for every training and test input; the most relevant
    positions of each are replaced by the training data's mean there (of each channel; of each column of a table), and
    a model is trained anew. So the loss is one of information, not of being unlike the training data.
    Rows: of each method and share `removed` the mean `accuracy` over the repeats and its `spread` (standard
    deviation), `below_random`: how much lower it is than with random positions removed, and of how many inputs the map
    is `undefined`, the same everywhere or not finite: their positions go at random.
    Cost: `repeats` · (1 + (methods + 1) · `fractions`) + 1 trainings, and each method once for all the data.
    Limits: inputs of numbers only, for tokens have no mean; a method that points out all redundant evidence at once
    wins over one that finds what suffices; where the positions removed tell the class by their shape, the accuracy
    does not fall.
    Source: Hooker, Erhan, Kindermans & Kim 2019, arXiv 1806.10758.

    Args:
        fractions: the shares of the positions that are removed.
        repeats: how often each model is trained, with seeds of their own.
    """

    fractions: tuple[float, ...] = (0.1, 0.3, 0.5, 0.7, 0.9)
    repeats: int = 1

    def __post_init__(self) -> None:
        if self.repeats < 1 or not self.fractions or not all(0 < share <= 1 for share in self.fractions):
            raise InputError(f"ROAR needs shares in (0, 1] and repeats ≥ 1, not {self.fractions}, {self.repeats}")

    def run(
        self,
        fit: Fit,
        train: Data,
        test: Data,
        methods: Sequence[Method | str],
        *,
        path: str | Path | None = None,
        seed: int = 0,
        progress: bool = False,
    ) -> Findings:
        """Answer for these methods and, as the control, a random map.

        Args:
            fit: trains a model: `fit(inputs, labels, seed)`, the same one for the same arguments.
            train, test: inputs, batch first, and the class of each.
            methods: methods or their names.
            path: a JSON file that keeps every accuracy as soon as it is known; a run that was stopped goes on there.
            seed: of the trainings, which use this one and those that follow, and of the methods.
            progress: show a bar over the trainings.

        Raises:
            InputError: data and labels do not fit, or `path` holds another study, seed or other data.
        """
        check_data(train, "training")
        check_data(test, "test")
        if not train[0].is_floating_point() or train[0].shape[1:] != test[0].shape[1:]:
            raise InputError(
                "ROAR needs training and test inputs of one shape, in floating point (their mean replaces what is "
                f"removed), not {train[0].dtype} {tuple(train[0].shape)} and {tuple(test[0].shape)}"
            )
        chosen = with_controls(methods, (RandomMap(),))
        known = _Known(path, {"study": self.config(), "seed": seed, "data": _digest(*train, *test)})
        keys = {title: json.dumps(method.config(), sort_keys=True) for title, method in chosen.items()}
        with tqdm(total=self.repeats * (1 + len(chosen) * len(self.fractions)), disable=not progress) as bar:
            whole = self._trained(fit, train, test, known, "nothing removed", seed, bar)
            explained: nn.Module | Model | None = None
            found: dict[str, list[Tensor]] = {}
            for title, method in chosen.items():
                names = [f"{keys[title]} {share}" for share in self.fractions]
                ranks: tuple[Tensor, Tensor] | None = None
                if not all(known.has(name, self.repeats) for name in names):
                    if explained is None:
                        explained = fit(*_copies(train), seed)
                    (one, blank), (other, more) = (_ranks(explained, method, x, seed) for x, _ in (train, test))
                    ranks = one, other
                    if not known.has(f"{keys[title]} undefined", 1):
                        known.add(f"{keys[title]} undefined", float(blank + more))
                found[title] = []
                for share, name in zip(self.fractions, names, strict=True):
                    less = (train, test) if ranks is None else _reduced(train, test, ranks, share)
                    found[title].append(self._trained(fit, less[0], less[1], known, name, seed, bar))
        control = next(title for title, method in chosen.items() if isinstance(method, RandomMap))
        rows = [
            {
                "method": title,
                "removed": share,
                "accuracy": float(found[title][k].mean()),
                "spread": float(found[title][k].std(correction=0)),
                "below_random": float((found[control][k] - found[title][k]).mean()),
                "undefined": int(known.cells[f"{keys[title]} undefined"][0]),
            }
            for title in chosen
            for k, share in enumerate(self.fractions)
        ]
        details = {"nothing removed": whole, "n": len(test[0]), "accuracies": found}
        return Findings(rows, details)

    def _trained(
        self, fit: Fit, train: Data, test: Data, known: "_Known", name: str, seed: int, bar: "tqdm[Any]"
    ) -> Tensor:
        """The accuracy of each repeat (repeats,)."""
        for repeat in range(self.repeats):
            if not known.has(name, repeat + 1):
                known.add(name, accuracy(fit(*_copies(train), seed + repeat), test))
            bar.update()
        return torch.tensor(known.cells[name], dtype=torch.float64)


class _Known:
    """The accuracies found so far, by what was removed; in a file that is replaced whole, and so never torn."""

    def __init__(self, path: str | Path | None, header: dict[str, Any]) -> None:
        self.path = None if path is None else Path(path)
        self.header = json.loads(json.dumps(header))
        self.cells: dict[str, list[float]] = {}
        if self.path is not None and self.path.exists():
            try:
                kept = json.loads(self.path.read_text())
                same, self.cells = kept["header"] == self.header, kept["cells"]
            except (ValueError, LookupError, TypeError) as error:
                raise InputError(f"{path} was not written by ROAR: {error}; give another path") from error
            if not same:
                raise InputError(f"{path} holds another study, another seed or other data; give another path")

    def has(self, name: str, repeats: int) -> bool:
        """Whether so many repeats are known."""
        return len(self.cells.get(name, ())) >= repeats

    def add(self, name: str, value: float) -> None:
        """Keep another repeat's accuracy."""
        self.cells.setdefault(name, []).append(value)
        if self.path is not None:
            written = self.path.with_name(f"{self.path.name}.part")
            written.write_text(json.dumps({"header": self.header, "cells": self.cells}, indent=1))
            os.replace(written, self.path)


def _ranks(model: nn.Module | Model, method: Method, inputs: Tensor, seed: int) -> tuple[Tensor, int]:
    """The place of every position in the order of relevance (n, places), from 0; for how many maps there is none."""
    with started(model, inputs, None, seed=seed, differentiable=method.needs() != "outputs") as task:
        answer = method.attribute(task)
        relevance = answer.relevance if isinstance(answer, Attribution) else answer
        explained = case(Samples(task), relevance, method)
        undefined = explained.constant() | ~explained.finite()
        ranks, at_random = (explained.once(Ranks(Pixels(), order)) for order in ("most", "random"))
        return torch.where(undefined[:, None], at_random, ranks), int(undefined.sum())


def _reduced(train: Data, test: Data, ranks: tuple[Tensor, Tensor], share: float) -> tuple[Data, Data]:
    """Training and test data with the most relevant share of the positions of each input at the training mean."""
    axes = (0, *range(2, train[0].ndim))
    mean = train[0].double().mean(axes, keepdim=True).to(train[0])

    def less(data: Data, order: Tensor) -> Data:
        inputs, labels = data
        shape = (len(inputs), 1, *inputs.shape[2:]) if inputs.ndim > 2 else inputs.shape
        gone = (order < round(share * order.shape[1])).view(shape).to(inputs.device)
        return torch.where(gone, mean, inputs), labels

    return less(train, ranks[0]), less(test, ranks[1])


def _copies(data: Data) -> Data:
    """So that a training that works in place leaves the data as they were."""
    return data[0].clone(), data[1].clone()


def _digest(*tensors: Tensor) -> str:
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
