"""The cards of the methods in a report: what each computes, its settings, cost, limits and source."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from whybox.core.card import Card, card
from whybox.core.configs import config_text, config_titles
from whybox.core.errors import UnknownNameError
from whybox.core.registry import method_class
from whybox.report.findings import Failure, Findings


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
        _card(config, text, title, findings, models)
        for (text, config), title in zip(configs.items(), titles, strict=True)
    )


def card_of(config: dict[str, Any]) -> Card:
    """The card of a configured method; an empty one where its class is not registered."""
    try:
        return card(method_class(config["name"]))
    except UnknownNameError:
        return Card("")


def _card(
    config: dict[str, Any], text: str, title: str, findings: Sequence[Findings], models: Sequence[str]
) -> MethodCard:
    about = card_of(config)
    fields = tuple(
        (key, config_text(value), about.fields.get(key, "")) for key, value in config.items() if key != "name"
    )
    measured = []
    for found, model in zip(findings, models, strict=True):
        for result in found.results:
            if config_text(result.method) == text:
                said = _failed(result) if isinstance(result, Failure) else _cost(result, len(found))
                measured.append(f"{model}: {said}" if len(findings) > 1 else said)
    return MethodCard(title, text, about, fields, tuple(measured))


def _failed(result: Failure) -> str:
    return "could not explain this model"


def _cost(result: Any, samples: int) -> str:
    passes = f"{result.forwards / samples:.3g} forward and {result.backwards / samples:.3g} backward passes a sample"
    return f"{result.seconds:.2g} s for {samples} sample{'s' if samples > 1 else ''}, {passes}"
