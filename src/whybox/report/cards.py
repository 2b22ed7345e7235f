"""The cards of the methods in a report: what each computes, its settings, cost, limits and source."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from whybox.core.card import Card, card
from whybox.core.configs import config_class, config_text, config_titles
from whybox.core.explanation import Explanation
from whybox.evaluation.parts import Explained
from whybox.report.findings import Failure, Findings

# What a configuration says of a method that was fitted, besides its fields.
_FITTED = {"fitted": "the digest of what it has learned.", "file": "where that was read."}


@dataclass(frozen=True)
class MethodCard:
    """One method; `settings` are (field, value, meaning), `measured` what it cost each model."""

    title: str
    text: str
    card: Card
    settings: tuple[tuple[str, str, str], ...]
    measured: tuple[str, ...]


def method_cards(findings: Sequence[Findings], models: Sequence[str]) -> tuple[MethodCard, ...]:
    """The cards of all methods that were asked, each once."""
    configs: dict[str, dict[str, Any]] = {}
    for found in findings:
        for result in found.results:
            configs.setdefault(config_text(result.method), result.method)
    titles = config_titles(list(configs.values()))
    return tuple(
        method_card(config, title, _measured(text, findings, models))
        for (text, config), title in zip(configs.items(), titles, strict=True)
    )


def method_card(config: dict[str, Any], title: str, measured: tuple[str, ...]) -> MethodCard:
    """The card of one method or metric, as it was configured."""
    about = card_of(config)
    fields = tuple(
        (key, config_text(value), about.fields.get(key, _FITTED.get(key, "")))
        for key, value in config.items()
        if key != "name"
    )
    return MethodCard(title, config_text(config), about, fields, measured)


def card_of(config: dict[str, Any]) -> Card:
    """The card of a configured method or metric; an empty one where its class is not registered."""
    cls = config_class(config)
    return Card("") if cls is None else card(cls)


def _measured(text: str, findings: Sequence[Findings], models: Sequence[str]) -> tuple[str, ...]:
    """What the method has cost each model."""
    measured = []
    for found, model in zip(findings, models, strict=True):
        for result in found.results:
            if config_text(result.method) == text:
                said = _failed(result) if isinstance(result, Failure) else cost_says(result, len(found))
                measured.append(f"{model}: {said}" if len(findings) > 1 else said)
    return tuple(measured)


def _failed(result: Failure) -> str:
    return "could not explain this model"


def cost_says(result: Explanation | Explained, samples: int) -> str:
    """The cost of explaining so many samples, in words."""
    passes = f"{result.forwards / samples:.3g} forward and {result.backwards / samples:.3g} backward passes a sample"
    return f"{result.seconds:.2g} s for {samples} sample{'s' if samples > 1 else ''}, {passes}"
