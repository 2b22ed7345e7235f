"""Explanation: the record of one answer, for a batch of inputs; it can be saved, loaded and drawn."""

import json
import platform
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from whybox._version import __version__
from whybox.core.configs import config_shows
from whybox.core.errors import CheckpointError, InputError
from whybox.core.files import write_whole
from whybox.core.layout import by_position
from whybox.core.method import Check
from whybox.core.model import Domain
from whybox.core.passage import Passage
from whybox.core.tree import Inputs, as_tuple, each

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMAT = 1


@dataclass(frozen=True)
class Prediction:
    """One class as the model sees it."""

    index: int
    label: str
    score: float
    probability: float


@dataclass(frozen=True, eq=False)
class Explanation:
    """The record of one answer for n inputs; all tensors have the batch first and lie on the CPU.

    Attributes:
        relevance: as the method gave it: raw, same rank as the input, size 1 on axes not told apart.
        inputs: the inputs as the model saw them.
        method: the method's configuration; `whybox.method(**method)` builds it again, unless it was fitted to
            data and not read from a file, or is another library's.
        target: what is explained of each sample, in words.
        scores: the target's score for each sample (n,).
        outputs: the model's raw output (n, classes), or (n, …) for a dense one.
        model: the model's name.
        labels: the names of the classes, or None.
        domains: the lowest and highest valid value of each input.
        checks: what was measured of the answer, each with its limit and a sentence.
        details: what else the method knows.
        seconds, forwards, backwards: the cost of the method, without the checks.
        seed, at: as they were given.
        versions: of whybox, torch, Python and the platform.
        passages: for texts, what stands at the positions of each; None for other inputs.
    """

    relevance: Inputs
    inputs: Inputs
    method: dict[str, Any]
    target: tuple[str, ...]
    scores: Tensor
    outputs: Tensor
    model: str
    domains: tuple[Domain, ...]
    labels: tuple[str, ...] | None = None
    checks: tuple[Check, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    forwards: int = 0
    backwards: int = 0
    seed: int = 0
    at: str | None = None
    versions: dict[str, str] = field(default_factory=lambda: versions())
    passages: tuple[Passage, ...] | None = None

    def __len__(self) -> int:
        return len(self.scores)

    def sample(self, index: int) -> "Explanation":
        """The record of one sample alone, still with a batch axis (of one)."""
        if not 0 <= index < len(self):
            raise InputError(f"sample {index} is out of range: the explanation holds {len(self)}")
        rows = slice(index, index + 1)
        return replace(
            self,
            relevance=each(lambda r: r[rows], self.relevance),
            inputs=each(lambda x: x[rows], self.inputs),
            target=self.target[rows],
            scores=self.scores[rows],
            outputs=self.outputs[rows],
            checks=tuple(replace(check, values=check.values[rows]) for check in self.checks),
            details=_map_tensors(self.details, lambda value: value[rows] if len(value) == len(self) else value),
            passages=self.passages and self.passages[rows],
        )

    def predictions(self, sample: int = 0, count: int = 5) -> list[Prediction]:
        """The `count` most probable classes of a sample, best first; empty for a dense output.

        The probability is the softmax over the classes (the scores themselves, where they are not negative and add
        up to 1), or the sigmoid where the model has a single output.
        """
        if self.outputs.ndim > 2:
            return []
        scores = self.outputs[sample].reshape(-1).float()
        if len(scores) > 1 and bool((scores >= 0).all()) and abs(float(scores.sum()) - 1) < 1e-4:
            probabilities = scores  # the model ends in a softmax of its own
        else:
            probabilities = scores.softmax(0) if len(scores) > 1 else scores.sigmoid()
        best = scores.argsort(descending=True, stable=True)[:count].tolist()
        names = self.labels or ()
        return [
            Prediction(i, names[i] if i < len(names) else f"class {i}", float(scores[i]), float(probabilities[i]))
            for i in best
        ]

    def by_position(self) -> Tensor:
        """The first input's relevance with one value per position, (n, *grid): what is drawn and compared."""
        return by_position(as_tuple(self.relevance)[0], as_tuple(self.inputs)[0])

    def tokens(self, sample: int = 0) -> list[tuple[str, float]]:
        """The tokens of a text, each with its relevance.

        Raises:
            InputError: what is explained is no text.
        """
        if self.passages is None:
            raise InputError("this explanation is not one of texts; whybox.text.tokens explains these")
        pieces = self.passages[sample].pieces
        return list(zip(pieces, self.by_position()[sample, : len(pieces)].tolist(), strict=True))

    @property
    def shows(self) -> str:
        """What the relevance is made of, as in `Taxonomy`; "features" where the method is not registered."""
        return config_shows(self.method)

    def save(self, path: str | Path) -> None:
        """Write the record into one safetensors file."""
        tensors: dict[str, Tensor] = {}
        record = _split({name: getattr(self, name) for name in self.__dataclass_fields__}, tensors, "")
        write_whole(path, save(tensors, {"whybox": json.dumps({"format": FORMAT, **record})}))

    @classmethod
    def load(cls, path: str | Path) -> "Explanation":
        """Read a record that `save` has written.

        Raises:
            CheckpointError: the file is damaged, or not one of these.
        """
        try:
            with safe_open(str(path), "pt") as file:
                record = json.loads((file.metadata() or {})["whybox"])
                if record.pop("format") != FORMAT:
                    raise CheckpointError(f"{path} was written by another version of whybox; explain again")
                fields = _join(record, {name: file.get_tensor(name) for name in file.keys()})  # noqa: SIM118
            return cls(**fields)
        except (SafetensorError, OSError, LookupError, AttributeError, TypeError, ValueError) as error:
            raise CheckpointError(f"{path} is not an explanation that whybox has saved: {error}") from error

    def plot(self, sample: int = 0, **options: Any) -> "Figure":
        """Draw one sample: `whybox.plot.explanation(self, sample)`."""
        from whybox.plot import explanation

        figure: Figure = explanation(self, sample, **options)
        return figure

    def _repr_html_(self) -> str:
        from whybox.report import fragment

        html: str = fragment(self)
        return html

    def __str__(self) -> str:
        if self.passages is None:
            return repr(self)
        from whybox.plot import terminal

        drawn: str = terminal(self)
        return drawn

    def __repr__(self) -> str:
        shape = tuple(as_tuple(self.relevance)[0].shape)
        more = ", …" if len(self) > 1 else ""
        return f"Explanation({self.model}, {self.method['name']}, {self.target[0]}{more}, relevance {shape})"


def versions() -> dict[str, str]:
    """What is needed to say where a result comes from."""
    return {
        "whybox": __version__,
        "torch": str(torch.__version__),
        "numpy": version("numpy"),
        "python": platform.python_version(),
        "platform": platform.platform(),
    }


_VALUES: dict[str, Any] = {"Check": Check, "Domain": Domain, "Passage": Passage}


def _split(value: Any, tensors: dict[str, Tensor], path: str) -> Any:
    """`value` as JSON, its tensors put into `tensors` under their path."""
    if isinstance(value, Tensor):
        tensors[path] = value.contiguous().clone()
        return {"$tensor": path}
    if type(value).__name__ in _VALUES:
        fields = {name: getattr(value, name) for name in value.__dataclass_fields__}
        return {"$value": type(value).__name__, **_split(fields, tensors, path)}
    if isinstance(value, dict):
        return {key: _split(part, tensors, f"{path}.{key}" if path else key) for key, part in value.items()}
    if isinstance(value, tuple):
        return {"$tuple": [_split(part, tensors, f"{path}.{i}") for i, part in enumerate(value)]}
    if isinstance(value, list):
        return [_split(part, tensors, f"{path}.{i}") for i, part in enumerate(value)]
    return value


def _join(value: Any, tensors: dict[str, Tensor]) -> Any:
    """The reverse of `_split`."""
    if isinstance(value, list):
        return [_join(part, tensors) for part in value]
    if not isinstance(value, dict):
        return value
    if "$tensor" in value:
        return tensors[value["$tensor"]]
    if "$tuple" in value:
        return tuple(_join(part, tensors) for part in value["$tuple"])
    fields = {key: _join(part, tensors) for key, part in value.items() if key != "$value"}
    return _VALUES[value["$value"]](**fields) if "$value" in value else fields


def _map_tensors(value: Any, function: Any) -> Any:
    if isinstance(value, Tensor):
        return function(value) if value.ndim else value
    if isinstance(value, dict):
        return {key: _map_tensors(part, function) for key, part in value.items()}
    return tuple(_map_tensors(part, function) for part in value) if isinstance(value, tuple) else value
