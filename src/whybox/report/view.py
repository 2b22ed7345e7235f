"""The report as values that the template only has to lay out."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import repeat

from torch import Tensor

from whybox._version import __version__
from whybox.core.configs import config_shows, config_text, config_title, config_titles
from whybox.core.errors import InputError
from whybox.core.explanation import Explanation
from whybox.core.tree import as_tuple
from whybox.plot import is_change, number, picture, scale_of
from whybox.report.cards import MethodCard, method_cards
from whybox.report.change import ChangeView, change_view
from whybox.report.facts import facts_text
from whybox.report.film import FilmView, film_view
from whybox.report.findings import Failure, Findings
from whybox.report.images import LOSSLESS_PIXELS, as_bytes, data_uri, webp
from whybox.report.maps import CRISP, SUMLESS, MapView, is_signed, map_view, overlay
from whybox.report.names import model_titles, percent, settings
from whybox.report.reproduce import Reproduce, reproduce
from whybox.report.trace import TraceView, trace_view
from whybox.report.trust import Trust, trust
from whybox.report.verdict import Verdict, label_of, verdict


@dataclass(frozen=True)
class Shown:
    """The input of one sample; `under` names the style that lays it under the maps."""

    uri: str
    width: int
    height: int
    crisp: bool
    under: str
    caption: str


@dataclass(frozen=True)
class MethodView:
    """One method's answer for one sample: a map, or the message of its failure."""

    title: str
    settings: str
    map: MapView | None
    facts: str
    failure: str


@dataclass(frozen=True)
class Option:
    """One class of "why this, not that", with its map."""

    index: int
    label: str
    percent: str
    difference: str
    lead: float
    map: MapView


@dataclass(frozen=True)
class ContrastView:
    """ "Why this, not that" for one sample."""

    this: str
    method: str
    says: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class ModelView:
    """What one model says of one picture."""

    title: str
    name: str
    verdict: Verdict
    shown: Shown | None
    methods: tuple[MethodView, ...]
    contrast: ContrastView | None
    contrast_note: str
    trust: Trust
    changes: tuple[ChangeView, ...]
    films: tuple[FilmView, ...]
    traces: tuple[TraceView, ...]


@dataclass(frozen=True)
class PictureView:
    """One picture, seen by each model."""

    name: str
    models: tuple[ModelView, ...]

    @property
    def maps(self) -> bool:
        """Whether there is a map of where the evidence lies, or the message of one that failed."""
        return any(model.methods for model in self.models)

    @property
    def overlays(self) -> bool:
        """Whether there is a map that lies over the picture."""
        return any(one.map is not None and one.map.overlay for model in self.models for one in model.methods)

    @property
    def texts(self) -> bool:
        """Whether what is explained is a text."""
        return any(
            one.map is not None and one.map.passage is not None for model in self.models for one in model.methods
        )

    def drawn(self, *, signed: bool) -> bool:
        """Whether there is a map with two colours, or one with a single colour."""
        return any(one.map is not None and one.map.signed is signed for model in self.models for one in model.methods)


@dataclass(frozen=True)
class ReportView:
    """The whole report."""

    title: str
    version: str
    pictures: tuple[PictureView, ...]
    under: dict[str, str]
    cards: tuple[MethodCard, ...]
    reproduce: Reproduce


def view(findings: Sequence[Findings], names: Sequence[str], command: str) -> ReportView:
    """Everything that the report shows.

    Raises:
        InputError: the findings are not about the same pictures, or there is not one name for each.
    """
    if not findings or any(len(found) != len(names) for found in findings):
        counts = ", ".join(str(len(found)) for found in findings) or "no"
        raise InputError(f"a report needs one name for each picture: {counts} pictures, {len(names)} names")
    titles = model_titles([found.model for found in findings])
    under: dict[str, str] = {}
    signed = _signed(findings)
    pictures = tuple(
        PictureView(
            name,
            tuple(_model(found, sample, title, under, signed) for found, title in zip(findings, titles, strict=True)),
        )
        for sample, name in enumerate(names)
    )
    subject = names[0] if len(names) == 1 else f"{len(names)} pictures"
    return ReportView(
        title=f"{' and '.join(titles)}: {subject}",
        version=__version__,
        pictures=pictures,
        under={name: uri for uri, name in under.items()},
        cards=method_cards(findings, titles),
        reproduce=reproduce(findings, names, command),
    )


def _model(found: Findings, sample: int, title: str, under: dict[str, str], signed: set[str]) -> ModelView:
    titles = config_titles([result.method for result in found.results])
    explained = [t for t, result in zip(titles, found.results, strict=True) if isinstance(result, Explanation)]
    maps = [(result, t) for result, t in zip(found.results, titles, strict=True) if not _is_change(result)]
    return ModelView(
        title=title,
        name=found.model,
        verdict=verdict(found.explanations[0], sample, title, found.this, found.versus),
        shown=_shown(found, sample, under),
        methods=tuple(_method(result, sample, t, signed) for result, t in maps),
        contrast=_contrast(found, sample),
        contrast_note=found.contrast_note,
        trust=trust(found.explanations, explained, sample, found.trials),
        changes=tuple(
            filter(None, map(change_view, found.explanations, repeat(sample), explained, repeat(found.preprocess)))
        ),
        films=tuple(filter(None, map(film_view, found.explanations, repeat(sample), explained))),
        traces=tuple(filter(None, map(trace_view, found.explanations, repeat(sample), explained))),
    )


def _signed(findings: Sequence[Findings]) -> set[str]:
    """The methods with relevance below zero in any model or picture, so that one method always has the same colours."""
    explanations = (explanation for found in findings for explanation in found.explanations)
    return {config_text(explanation.method) for explanation in explanations if is_signed(explanation)}


def _is_change(result: Explanation | Failure) -> bool:
    """Whether it is shown as what would have to change, not as a map of where the evidence lies."""
    return isinstance(result, Explanation) and is_change(result)


def _method(result: Explanation | Failure, sample: int, title: str, signed: set[str]) -> MethodView:
    if isinstance(result, Failure):
        return MethodView(title, settings(result.method), None, "", result.message)
    shown = map_view(result, sample, title, signed=config_text(result.method) in signed)
    return MethodView(title, settings(result.method), shown, facts_text(result, sample), "")


def _shown(found: Findings, sample: int, under: dict[str, str]) -> Shown | None:
    """The picture that the model saw; the same one under several maps is stored once."""
    inputs = as_tuple(found.explanations[0].inputs)[0]
    if inputs.ndim != 4:
        return None
    pixels = as_bytes(picture(inputs[sample], found.domain, found.preprocess))
    height, width = pixels.shape[:2]
    small = height * width <= LOSSLESS_PIXELS
    crisp = max(height, width) <= CRISP
    lossy = data_uri(webp(pixels, None if crisp else 85))
    describe = getattr(found.preprocess, "describe", None)
    channels = inputs.shape[1]
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels, their mean as grey")
    size = f"{width} × {height} pixels, {kind}"
    return Shown(
        uri=data_uri(webp(pixels, None if small else 92)),
        width=width,
        height=height,
        crisp=crisp,
        under=under.setdefault(lossy, f"under-{len(under)}"),
        caption=f"{width} × {height} pixels. {describe()[:1].upper()}{describe()[1:]}" if describe else size,
    )


def _contrast(found: Findings, sample: int) -> ContrastView | None:
    contrasts = found.contrasts
    if contrasts is None or contrasts.by_position(_inputs(found))[0].ndim != 3 or _inputs(found).ndim != 4:
        return None
    maps = [places[sample] for places in contrasts.by_position(_inputs(found))]
    scale = scale_of(maps)
    sumless = config_shows(contrasts.method) in SUMLESS
    outputs = found.explanations[0].outputs
    this = label_of(int(contrasts.this[sample]), found.labels)
    options = []
    for values, other in zip(maps, contrasts.others[sample].tolist(), strict=True):
        that = label_of(other, found.labels)
        shown = overlay(values, scale, f"Why {this} and not {that}")
        lead = float(outputs[sample, int(contrasts.this[sample])] - outputs[sample, other])
        options.append(
            Option(
                index=other,
                label=that,
                percent=percent(float(outputs[sample].float().softmax(0)[other])),
                difference=number(lead),
                lead=lead,
                map=replace(shown, total="") if sumless else shown,
            )
        )
    return ContrastView(this, config_title(contrasts.method), scale.says(), tuple(options))


def _inputs(found: Findings) -> Tensor:
    return as_tuple(found.explanations[0].inputs)[0]
