"""Reproduce: what it takes to get the same answer again."""

import json
import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor

from whybox.core.configs import config_class, config_text, config_title
from whybox.core.target import Contrast, Logit, LogProbability, Neuron, Probability, Target
from whybox.core.tree import as_tuple
from whybox.report.cards import card_of
from whybox.report.findings import Findings

_CHECKS = (
    "The check against random weights: Adebayo, Gilmer, Muelly, Goodfellow, Hardt & Kim 2018, arXiv 1810.03292.",
    "Edge detectors as a control: Adebayo et al. 2018, arXiv 1810.03292.",
)


@dataclass(frozen=True)
class Reproduce:
    """What the last section shows."""

    command: str
    python: str
    configuration: str
    versions: tuple[tuple[str, str], ...]
    seed: int
    citations: tuple[str, ...]
    written: str


def reproduce(findings: Sequence[Findings], names: Sequence[str], command: str) -> Reproduce:
    """The command, the same in Python, the configuration, the versions and what to cite."""
    first = findings[0].explanations[0]
    methods = [result.method for found in findings for result in found.results]
    return Reproduce(
        command=command,
        python=python_lines(findings, names, command),
        configuration=as_yaml(configuration(findings, names)),
        versions=tuple(first.versions.items()),
        seed=findings[0].seed,
        citations=(*sources(methods), *_CHECKS),
        written=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


def sources(configs: Sequence[dict[str, Any]]) -> tuple[str, ...]:
    """What to cite for these methods and metrics and those that they wrap, each once."""
    used = [*configs, *(inner for config in configs for inner in _inside(config))]
    found = [f"{config_title(one)}: {card_of(one).source}" for one in used if card_of(one).source not in ("", "-")]
    return tuple(dict.fromkeys(found))


def as_yaml(configuration: dict[str, Any]) -> str:
    """Plain values as YAML; what is not plain as text."""
    plain = json.loads(json.dumps(configuration, default=str))
    text: str = yaml.safe_dump(plain, sort_keys=False, allow_unicode=True, width=88, default_flow_style=None)
    return text


def configuration(findings: Sequence[Findings], names: Sequence[str]) -> dict[str, Any]:
    """Everything that was set, as plain values."""
    return {
        ("pictures" if findings[0].explanations[0].passages is None else "texts"): list(names),
        "models": [
            {
                "model": found.model,
                **_optional("preprocess", found.preprocess),
                "target": list(found.explanations[0].target),
                **({"at": found.at} if found.at is not None else {}),
                "methods": [result.method for result in found.results],
            }
            for found in findings
        ],
        "seed": findings[0].seed,
    }


def _optional(name: str, preprocess: Any) -> dict[str, str]:
    describe = getattr(preprocess, "describe", None)
    return {name: describe()} if describe else {}


def python_lines(findings: Sequence[Findings], names: Sequence[str], command: str) -> str:
    """A script that explains the same pictures with the same models, methods, targets and seed."""
    loads = _loads(findings, command)
    passages = findings[0].explanations[0].passages
    if passages is not None:
        return _of_texts(findings, loads, [passage.text for passage in passages])
    lines = [
        "import torch",
        "import whybox",
        "from whybox.datasets import read_image",
        "",
        f"names = {list(names)!r}",
        "findings = []",
    ]
    for found, load in zip(findings, loads, strict=True):
        lines += ["", load, _reading(found, names)]
        at = f", at={found.at!r}" if found.at is not None else ""
        options = f"{_target(found.target)}{at}, seed={found.seed}"
        methods = [method_line(result.method) for result in found.results]
        lines += ["methods = [", *methods, "]"]
        lines += [f"findings.append(whybox.report.collect(model, x, methods, {options}))"]
    lines += ["", 'whybox.report.write("report.html", findings, names)']
    return "\n".join(lines)


def _of_texts(findings: Sequence[Findings], loads: Sequence[str], texts: Sequence[str]) -> str:
    """The same for texts."""
    lines = ["import torch", "import whybox", "", f"texts = {list(texts)!r}", "findings = []"]
    for found, load in zip(findings, loads, strict=True):
        methods = [method_line(result.method) for result in found.results]
        lines += ["", load, "question = whybox.text.ask(model, None, texts)", "methods = [", *methods, "]"]
        asked = f"question.model, question.inputs, methods, {_target(found.target)}, at={found.at!r}, seed={found.seed}"
        lines += [f"findings.append(whybox.report.collect({asked}).of_texts(question.passages))"]
    return "\n".join([*lines, "", 'whybox.report.write("report.html", findings, texts)'])


def method_line(config: dict[str, Any]) -> str:
    """A method as a line of a script's list of them."""
    if config_class(config) is None:
        return f"    ...,  # {config['name']}: your own, or another library's"
    if "fitted" in config and "file" not in config:
        return f"    ...,  # {config['name']}, fitted: whybox.Fitted.load(FILE), with the digest {config['fitted']}"
    return f"    {config_text(config)!r},"


def _reading(found: Findings, names: Sequence[str]) -> str:
    """How to make the inputs: from the files, where the names are files."""
    if all(Path(name).is_file() for name in names):
        return "x = torch.stack([model.preprocess(read_image(name)) for name in names])"
    shape = tuple(as_tuple(found.explanations[0].inputs)[0].shape)
    return f"x = ...  # the same inputs, a tensor of shape {shape}; they were not read from files"


def _target(target: Target) -> str:
    """The target as arguments of `collect`."""
    if isinstance(target, Contrast):
        return f"target={_index(target.a)}, versus={_index(target.b)}"
    if type(target) is Logit:
        return f"target={_index(target.index)}"
    if isinstance(target, (Probability, LogProbability)):
        index = _index(target.index)
        index = f"torch.tensor({index})" if isinstance(target.index, Tensor) else index
        return f"target=whybox.{type(target).__name__}({index})"
    if isinstance(target, Neuron):
        return f"target=whybox.{target!r}"
    return "target=..."  # a function: only its author can write it


def _index(index: Any) -> str:
    return repr(index.tolist() if isinstance(index, Tensor) else index)


def _loads(findings: Sequence[Findings], command: str) -> list[str]:
    """How to load each model: as the command did it, else by the model's name."""
    words = words_of(command)
    specs, weights = options_of(words, "--model", "-m"), options_of(words, "--weights")
    if len(specs) != len(findings):
        specs, weights = [], []
    loads = []
    if not specs:
        return [load_by_name(found.model) for found in findings]
    for place, spec in enumerate(specs):
        own = weights[place] if place < len(weights) and weights[place] != "default" else None
        loads.append(f"model = whybox.models.load({spec!r}{f', weights={own!r}' if own else ''})")
    return loads


def load_by_name(name: str) -> str:
    """How to load a model that is called "SPEC (WEIGHTS)", as `whybox.models.load` calls it."""
    found = re.fullmatch(r"(digits|(?:torchvision|timm|hf):\S+|.*\.py:\w+)(?: \((.+)\))?", name)
    if not found:
        return f"model = ...  # your own: {' '.join(name.split())}"
    weights = "random" if found[2] == "random weights" else found[2]
    return f"model = whybox.models.load({found[1]!r}{f', weights={weights!r}' if weights else ''})"


def words_of(command: str) -> list[str]:
    """The words of a command line; none where it is no command that can have been run."""
    try:
        return shlex.split(command)
    except ValueError:  # unbalanced quotes: not a command that was run
        return []


def options_of(words: Sequence[str], *names: str) -> list[str]:
    """The values given to an option, as `--name value` or `--name=value`."""
    found = []
    for word, following in pairwise([*words, ""]):
        if word in names:
            found.append(following)
        found += [word.removeprefix(f"{name}=") for name in names if word.startswith(f"{name}=")]
    return found


def _inside(method: Any) -> list[dict[str, Any]]:
    """The methods that a configuration wraps."""
    inner = [value for key, value in method.items() if key == "of" and isinstance(value, dict) and "name" in value]
    return [*inner, *(one for value in inner for one in _inside(value))]
