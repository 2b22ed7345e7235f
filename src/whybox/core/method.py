"""Method: a way of explaining as a plain value; Attribution: what it answers; Fitted: a method that has learned."""

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from whybox.core import registry
from whybox.core.errors import CheckpointError, InputError
from whybox.core.files import write_whole
from whybox.core.guard import guard
from whybox.core.model import Model
from whybox.core.start import check_relevance, started
from whybox.core.target import Target
from whybox.core.task import Task
from whybox.core.tree import Inputs, as_tuple
from whybox.core.value import Value


@dataclass(frozen=True)
class Taxonomy:
    """Where a method stands among the others (the three questions of Li et al. 2021, arXiv 2103.10689, and two more).

    Attributes:
        shows: what the explanation is made of; a "mask" says from 0 to 1 how much of each place is marked, which is no
            amount: it has no sum and no share in a difference of scores.
        needs: what must be known of the model; "outputs" means that the method is model-agnostic.
        relation: how explanation and model hang together.
        local: it explains one prediction, not the whole model.
        trains: something must be trained or fitted first.
    """

    shows: Literal["features", "regions", "mask", "contrast"]
    needs: Literal["outputs", "gradients", "architecture"]
    relation: Literal["closed-form", "composition", "dependence", "proxy"]
    local: bool = True
    trains: bool = False

    @property
    def model_agnostic(self) -> bool:
        """Whether the method works for any function from inputs to scores."""
        return self.needs == "outputs"


@dataclass(frozen=True, eq=False)
class Check:
    """Something that a method promises, measured.

    Attributes:
        name: a short name, as in "completeness gap".
        values: the measured value of each sample, (n,).
        limit: the largest value at which it still passes.
        says: one sentence on what is measured and what a failure means.
    """

    name: str
    values: Tensor
    limit: float
    says: str

    @property
    def passed(self) -> Tensor:
        """Whether each sample passes (n,); NaN does not."""
        return self.values <= self.limit


@dataclass
class Attribution:
    """What a method answers.

    A method fills in relevance, details and checks; `run` fills in the rest.

    Attributes:
        relevance: same rank as the input; size 1 on axes that the method does not tell apart; raw, never normalised.
        details: what else the method knows, per sample.
        checks: what the method promises, measured.
        target: the pinned target.
        seconds: the wall time of the run.
        forwards, backwards: how often the model was asked, in samples.
    """

    relevance: Inputs
    details: dict[str, Any] = field(default_factory=dict)
    checks: tuple[Check, ...] = ()
    target: Target | None = None
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0


class Method(Value):
    """A way of explaining: a frozen dataclass of plain values that holds no model and no tensors.

    The author of a method writes the dataclass, its docstring (summary, formula, Cost:, Limits:, Source:),
    `taxonomy` and `attribute`; users call it.
    """

    taxonomy: ClassVar[Taxonomy]
    # Whether `fit` must be given the classes of its inputs too.
    supervised: ClassVar[bool] = False

    def attribute(self, task: Task) -> "Inputs | Attribution":
        """The relevance of the task's inputs for its target. Written by the method's author."""
        raise NotImplementedError

    def learn(self, model: Model, data: Any, *, seed: int, progress: bool) -> dict[str, Tensor]:
        """What `fit` keeps; only for methods that can learn from data. Written by the method's author."""
        raise InputError(f"{type(self).__name__} has nothing to fit; call it directly")

    def needs(self) -> str:
        """What must be known of the model: "outputs", "gradients" or "architecture". A wrapper asks what it wraps."""
        return self.taxonomy.needs

    def evidence(
        self, model: Model, inputs: Inputs, target: Target, **options: Any
    ) -> tuple[dict[str, Any], tuple[Check, ...]]:
        """Further details and checks of an answer, too dear for every run: `whybox.explain` asks for them."""
        return {}, ()

    def __call__(self, model: Model | nn.Module, inputs: Inputs, target: Any = None, **options: Any) -> Inputs:
        """The relevance alone: `run(...).relevance`."""
        return self.run(model, inputs, target, **options).relevance

    def run(
        self,
        model: Model | nn.Module,
        inputs: Inputs,
        target: Any = None,
        *,
        forward_kwargs: Mapping[str, Any] | None = None,
        seed: int = 0,
        progress: bool = False,
        at: str | None = None,
    ) -> Attribution:
        """Explain `target` for every sample of the batch; the model is left exactly as it was.

        Args:
            model: any `nn.Module`, or a Model around one.
            inputs: a tensor with the batch first, or a tuple of them. They are not changed.
            target: a class index, one index per sample, a Target, a function of the output, or None for the class
                predicted for the original input (which costs one more forward pass).
            forward_kwargs: keyword arguments of the model; tensors with one row per sample follow the samples.
            seed: of all noise; the same seed gives the same result, bit for bit at a fixed chunk size.
            progress: show a bar on anything over two seconds.
            at: explain in terms of this layer's output instead of the input.

        Returns:
            the attribution; its relevance lies on the input's device and has the rank of the input.

        Raises:
            InputError, TargetError, ModelError, UnknownNameError: before any long work, saying what to do.
        """
        began = time.perf_counter()
        with started(
            model,
            inputs,
            target,
            forward_kwargs=forward_kwargs,
            seed=seed,
            progress=progress,
            at=at,
            differentiable=self.needs() != "outputs",
        ) as task:
            try:
                answer = self.attribute(task)
            except KeyboardInterrupt as interrupt:
                of = f" of {task.cost.planned:,}" if task.cost.planned else ""
                done = f"{self._called()} stopped after {task.cost.forwards:,}{of} model evaluations"
                interrupt.add_note(done)
                raise
        result = answer if isinstance(answer, Attribution) else Attribution(answer)
        check_relevance(result.relevance, task.inputs, self._called())
        finite = _finite(result.relevance)
        if not bool(finite.passed.all()):
            result.checks = (*result.checks, finite)
        result.target = task.target
        result.seconds = time.perf_counter() - began
        result.forwards, result.backwards = task.cost.forwards, task.cost.backwards
        return result

    def fit(self, model: Model | nn.Module, data: Any, *, seed: int = 0, progress: bool = False) -> "Fitted":
        """Learn from data what the method needs; the result is a method too, with `save` and `load`."""
        model = Model.wrap(model)
        with guard(model.module, seed):
            return Fitted(self, self.learn(model, data, seed=seed, progress=progress))

    def _called(self) -> str:
        """The name of its class in messages."""
        return type(self).__name__


def _finite(relevance: Inputs) -> Check:
    """A check that counts the entries of the relevance that are NaN or infinite."""
    wrong = sum((~torch.isfinite(r)).reshape(len(r), -1).sum(1) for r in as_tuple(relevance))
    return Check(
        "entries not finite",
        torch.as_tensor(wrong),
        0.0,
        "NaN or infinite relevance cannot be read; the model's scores or gradients are not finite everywhere.",
    )


@dataclass(frozen=True)
class Fitted(Method):
    """A method together with what it has learned; run, save and load it like any value.

    Two are equal when method and learned state agree, bit for bit.

    Attributes:
        method: what was fitted.
        state: what it has learned, by name.
        file: from where it was loaded; "" where it was not.
        digest: of what it has learned, in 64 hexadecimal digits.
    """

    method: Method
    state: dict[str, Tensor] = field(repr=False, compare=False)
    file: str = field(default="", compare=False)
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", digest_of(self.state))

    @property
    def taxonomy(self) -> Taxonomy:  # type: ignore[override]
        """That of the method."""
        return self.method.taxonomy

    def needs(self) -> str:
        return self.method.needs()

    def _called(self) -> str:
        return type(self.method).__name__

    def attribute(self, task: Task) -> Inputs | Attribution:
        return self.method.attribute(replace(task, state=self.state))

    def config(self) -> dict[str, Any]:
        """That of the method, with the digest and the file, from which `whybox.method` reads it again."""
        return {**self.method.config(), "fitted": self.digest, **({"file": self.file} if self.file else {})}

    def save(self, path: str | Path) -> None:
        """Write method and state into one safetensors file, which appears whole or not at all."""
        state = {name: value.contiguous() for name, value in self.state.items()}
        write_whole(path, save(state, {"whybox": json.dumps(self.method.config())}))

    @classmethod
    def load(cls, path: str | Path) -> "Fitted":
        """Read a file that `save` has written.

        Raises:
            CheckpointError: the file is absent, damaged, or not one of these.
        """
        if not Path(path).is_file():
            raise CheckpointError(f"there is no file {str(path)!r} that whybox has saved; `whybox fit` writes one")
        try:
            with safe_open(str(path), "pt") as file:
                config = json.loads((file.metadata() or {}).get("whybox", "{}"))
                if "name" not in config:
                    raise ValueError("it names no method")  # a model's weights, or an Explanation
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return cls(registry.method(**config), state, str(path))
        except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is not a fitted method that whybox has saved: {error}") from error


def digest_of(state: Mapping[str, Tensor]) -> str:
    """A digest of names, types, shapes and values: two states have the same one where they agree bit for bit."""
    digest = hashlib.sha256()
    for name, value in sorted(state.items()):
        digest.update(f"{name}{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
