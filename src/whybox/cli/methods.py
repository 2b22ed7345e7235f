"""`whybox methods` and `whybox metrics`: the lists of them, and what is to know of one."""

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import typer

from whybox.core.text import columns, wrap

if TYPE_CHECKING:
    from whybox.core.method import Method
    from whybox.evaluation.metric import Metric


def list_methods() -> None:
    """Print every method with its place in the survey's table (Li et al. 2021) and what it computes."""
    from whybox.core.card import card
    from whybox.core.registry import method_class, methods

    names = methods()
    cards = {name: card(method_class(name)) for name in names}
    header = ("METHOD", "TRAINS", "LOCAL", "AGNOSTIC", "COST")
    rows = [(name, *_place(method_class(name)), _first_clause(cards[name].cost)) for name in names]
    lines = columns([header, *rows])
    typer.echo(lines[0])
    for name, line in zip(names, lines[1:], strict=True):
        typer.echo(line)
        typer.echo(wrap(cards[name].summary, "    "))
    typer.echo("")
    typer.echo(
        wrap(
            "TRAINS: something is fitted first. LOCAL: one prediction is explained, not the whole model. AGNOSTIC: any "
            "function will do, only its outputs are used. `whybox methods NAME` tells more and shows the fields."
        )
    )


def list_metrics() -> None:
    """Print every metric with its family, which of two scores is the better, what it needs and what it measures."""
    from whybox.core.card import card
    from whybox.core.registry import metric_class, metrics

    names = metrics()
    classes = {name: metric_class(name) for name in names}
    header = ("METRIC", "FAMILY", "BETTER", "NEEDS", "COST")
    rows = [(name, cls.family, better(cls), needs(cls), _first_clause(card(cls).cost)) for name, cls in classes.items()]
    lines = columns([header, *rows])
    typer.echo(lines[0])
    for (_, cls), line in zip(classes.items(), lines[1:], strict=True):
        typer.echo(line)
        typer.echo(wrap(card(cls).summary, "    "))
    typer.echo("")
    typer.echo(
        wrap(
            "NEEDS: the method, to explain again; the truth, where the evidence lies. `whybox metrics NAME` tells more."
        )
    )


def better(metric: "type[Metric]") -> str:
    """Which of two scores is the better one."""
    return "higher" if metric.higher_is_better else "lower"


def needs(metric: "type[Metric]") -> str:
    """What a metric must be given besides model, inputs, target and relevance."""
    return ", ".join(["method"] * metric.explains_again + ["truth"] * metric.needs_truth) or "-"


def describe(name: str) -> None:
    """Print what a method computes, its cost, limits, source and fields, and how to write it."""
    from whybox.core.registry import method_class

    cls = method_class(name)
    trains, local, agnostic = _place(cls)
    needed = f"the model's {cls.taxonomy.needs}; model-agnostic: {agnostic}; trains: {trains}; local: {local}"
    _tell(name, cls, {"Needs": needed}, "whybox fit" if cls.taxonomy.trains and learns(cls) else "--methods")


def learns(cls: "type[Method]") -> bool:
    """Whether it can learn from data."""
    from whybox.core.method import Method

    return cls.learn is not Method.learn


def describe_metric(name: str) -> None:
    """Print what a metric measures, its cost, limits, source and fields, and how to write it."""
    from whybox.core.registry import metric_class

    cls = metric_class(name)
    _tell(name, cls, {"Family": cls.family, "Better": better(cls), "Needs": needs(cls)}, "--metrics")


def _tell(name: str, cls: type, more: dict[str, str], option: str) -> None:
    from whybox.core.card import card

    about = card(cls)
    typer.echo(f"{name}: {cls.__name__}\n")
    typer.echo(wrap(about.summary))
    if about.body:
        typer.echo("")
        typer.echo(wrap(about.body))
    typer.echo("")
    for title, text in {"Cost": about.cost, "Limits": about.limits, "Source": about.source, **more}.items():
        typer.echo(wrap(f"{title}: {text}"))
    fields = [(field.name, written(_default(field))) for field in dataclasses.fields(cls)]
    if fields:
        typer.echo("")
        for line in columns(
            [("FIELD", "DEFAULT", "MEANING"), *((key, value, about.fields.get(key, "")) for key, value in fields)]
        ):
            typer.echo(line)
    typer.echo("\nOn the command line" + (", with any of its fields:" if fields else ":"))
    typer.echo(f'  {option} "{_call(name, fields)}"')


def _first_clause(text: str) -> str:
    return re.split(r"[;.,] |[.]$", text)[0]


def _place(cls: Any) -> tuple[str, str, str]:
    """Trains, local, model-agnostic: yes or no."""
    taxonomy = cls.taxonomy
    trains, local, agnostic = (
        "yes" if answer else "no" for answer in (taxonomy.trains, taxonomy.local, taxonomy.model_agnostic)
    )
    return trains, local, agnostic


def _default(field: Any) -> Any:
    if field.default is not dataclasses.MISSING:
        return field.default
    return field.default_factory() if field.default_factory is not dataclasses.MISSING else dataclasses.MISSING


def written(value: Any) -> str:
    """A value of a field as `--methods` reads it: methods and other values by name, the rest as Python writes it."""
    from whybox.core.method import Method
    from whybox.core.registry import name_of

    if value is dataclasses.MISSING:
        return "(must be given)"
    if not dataclasses.is_dataclass(value):
        return repr(value)
    kind = type(value)
    own = [
        (field.name, written(getattr(value, field.name)))
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != _default(field)
    ]
    return _call(name_of(kind) if isinstance(value, Method) else kind.__name__, own)


def _call(name: str, fields: list[tuple[str, str]]) -> str:
    return f"{name}({', '.join(f'{key}={value}' for key, value in fields)})" if fields else name
