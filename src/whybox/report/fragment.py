"""fragment: an explanation as a piece of HTML, for notebooks."""

from dataclasses import dataclass

from whybox.core.configs import config_title
from whybox.core.explanation import Explanation
from whybox.core.tree import as_tuple
from whybox.plot import change_of, picture, scale_for, scale_of
from whybox.report.change import change_lines, change_question
from whybox.report.film import FilmView, film_view
from whybox.report.images import as_bytes, data_uri, webp
from whybox.report.maps import CRISP, composed, is_signed, map_view
from whybox.report.names import model_titles
from whybox.report.passage import PassageView
from whybox.report.templates import templates
from whybox.report.trace import TraceView, trace_view
from whybox.report.trust import CheckRow, trust
from whybox.report.verdict import Verdict, verdict

MOST_SAMPLES = 4


@dataclass(frozen=True)
class _Sample:
    verdict: Verdict
    input: str
    map: str
    alt: str
    says: str
    signed: bool
    absolute: bool
    rendering: str
    checks: tuple[CheckRow, ...]
    film: FilmView | None
    change: tuple[str, ...]
    trace: TraceView | None
    passage: PassageView | None


def fragment(explanation: Explanation) -> str:
    """The first four samples: what the model saw, the map over it, the verdict and the checks. No scripts."""
    title = config_title(explanation.method)
    count = min(len(explanation), MOST_SAMPLES)
    return (
        templates()
        .get_template("fragment.html.j2")
        .render(
            title=title,
            samples=[_sample(explanation, sample, title) for sample in range(count)],
            more=len(explanation) - count,
        )
    )


def _sample(explanation: Explanation, sample: int, title: str) -> _Sample:
    shown = map_view(explanation, sample, title, signed=is_signed(explanation))
    change = change_of(explanation, sample)
    scale = (
        scale_for(explanation, sample, signed=shown.signed) if change is None else scale_of(change.added, signed=True)
    )
    said = verdict(explanation, sample, model_titles([explanation.model])[0], None, None)
    inputs = as_tuple(explanation.inputs)[0]
    input_uri, map_uri, rendering = "", shown.uri, "auto"
    if shown.overlay:
        values = explanation.by_position()[sample] if change is None else change.added
        pixels = as_bytes(picture(inputs[sample], explanation.domains[0]))
        input_uri, map_uri = (
            data_uri(webp(pixels, None if max(pixels.shape) <= CRISP else 90)),
            data_uri(webp(composed(pixels, values, scale))),
        )
        rendering = "pixelated" if max(pixels.shape) <= CRISP else "auto"
    return _Sample(
        verdict=said,
        input=input_uri,
        map=map_uri,
        alt=shown.alt,
        says=shown.says,
        signed=shown.signed,
        absolute=scale.absolute,
        rendering=rendering,
        checks=trust([explanation], [title], sample).checks,
        film=film_view(explanation, sample, title),
        change=(change_question(explanation, sample), *change_lines(explanation, sample)) if change else (),
        trace=trace_view(explanation, sample, title),
        passage=shown.passage,
    )
