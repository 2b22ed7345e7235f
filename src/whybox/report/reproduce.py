"""Reproduce: what it takes to get the same answer again."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import yaml
from markupsafe import Markup, escape

from whybox.report.cards import card_of
from whybox.report.findings import Findings
from whybox.report.names import method_title

_CHECKS = (
    "The check against random weights: Adebayo, Gilmer, Muelly, Goodfellow, Hardt & Kim 2018, arXiv 1810.03292.",
    "Edge detectors as a control: Adebayo et al. 2018, arXiv 1810.03292.",
)
_REFERENCE = re.compile(r"arXiv (\d{4}\.\d{4,5})|doi (10\.[^\s;,]+[^\s;,.])")


@dataclass(frozen=True)
class Reproduce:
    """What the last section shows."""

    command: str
    python: str
    configuration: str
    versions: tuple[tuple[str, str], ...]
    seed: int
    citations: tuple[Markup, ...]
    written: str


def reproduce(findings: Sequence[Findings], names: Sequence[str], command: str) -> Reproduce:
    """The command, the same in Python, the configuration, the versions and what to cite."""
    first = findings[0].explanations[0]
    methods = [result.method for found in findings for result in found.results]
    used = [*methods, *(inner for method in methods for inner in _inside(method))]
    sources = [f"{method_title(method)}: {card_of(method).source}" for method in used if card_of(method).source]
    return Reproduce(
        command=command,
        python=python_lines(findings, names, command),
        configuration=yaml.safe_dump(
            configuration(findings, names), sort_keys=False, allow_unicode=True, width=88, default_flow_style=None
        ),
        versions=tuple(first.versions.items()),
        seed=findings[0].seed,
        citations=tuple(map(_linked, dict.fromkeys((*sources, *_CHECKS)))),
        written=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


def configuration(findings: Sequence[Findings], names: Sequence[str]) -> dict[str, Any]:
    """Everything that was set, as plain values."""
    return {
        "pictures": list(names),
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
    lines = ["import torch", "import whybox", "from PIL import Image", "", f"names = {list(names)!r}", "findings = []"]
    for found, load in zip(findings, loads, strict=True):
        lines += ["", load, "x = torch.stack([model.preprocess(Image.open(name)) for name in names])"]
        options = "".join(
            f", {key}={value!r}" for key, value in (("at", found.at), ("seed", found.seed)) if value is not None
        )
        contrast = f", versus={found.versus.tolist()}" if found.versus is not None else ""
        target = ", target=…" if found.contrasts is None else f", target={found.contrasts.this.tolist()}"
        methods = [f"    whybox.method(**{result.method!r})," for result in found.results]
        lines += ["methods = [", *methods, "]"]
        lines += [f"findings.append(whybox.report.collect(model, x, methods{target}{contrast}{options}))"]
    lines += ["", 'whybox.report.write("report.html", findings, names)']
    return "\n".join(lines)


def _loads(findings: Sequence[Findings], command: str) -> list[str]:
    """How to load each model: as the command did it, else by the model's name."""
    words = _words(command)
    specs, weights = _options(words, "--model", "-m"), _options(words, "--weights")
    if len(specs) != len(findings):
        specs, weights = [re.sub(r"\s+\(.*\)$", "", found.model) for found in findings], []
    loads = []
    for place, spec in enumerate(specs):
        own = weights[place] if place < len(weights) and weights[place] != "default" else None
        loads.append(f"model = whybox.models.load({spec!r}{f', weights={own!r}' if own else ''})")
    return loads


def _words(command: str) -> list[str]:
    try:
        return shlex.split(command)
    except ValueError:  # unbalanced quotes: not a command that was run
        return []


def _options(words: Sequence[str], *names: str) -> list[str]:
    """The values given to an option, as `--name value` or `--name=value`."""
    found = []
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word in names:
            found.append(following)
        found += [word.removeprefix(f"{name}=") for name in names if word.startswith(f"{name}=")]
    return found


def _inside(method: Any) -> list[dict[str, Any]]:
    """The methods that a configuration wraps."""
    inner = [value for key, value in method.items() if key == "of" and isinstance(value, dict) and "name" in value]
    return [*inner, *(one for value in inner for one in _inside(value))]


def _linked(source: str) -> Markup:
    """A citation with its arXiv numbers and DOIs as links."""

    def link(found: re.Match[str]) -> str:
        place = f"arxiv.org/abs/{found[1]}" if found[1] else f"doi.org/{found[2]}"
        return f'<a href="https://{place}" rel="noreferrer">{found[0]}</a>'

    return Markup(_REFERENCE.sub(link, str(escape(source))))
