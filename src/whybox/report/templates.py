"""The templates of the report, and the style sheets and scripts that are written into it."""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup, escape

_ASSETS = Path(__file__).parent / "assets"
_CODE = re.compile(r"`([^`]+)`")
_REFERENCE = re.compile(r"arXiv (\d{4}\.\d{4,5})|doi (10\.[^\s;,]+[^\s;,.])")


@cache
def templates() -> Environment:
    """The environment of the templates; everything put into them is escaped."""
    environment = Environment(
        loader=PackageLoader("whybox.report", "assets"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["cited"] = cited
    environment.filters["prose"] = prose
    environment.filters["shares_json"] = shares_json
    return environment


def asset(name: str) -> str:
    """The text of a style sheet or a script."""
    return (_ASSETS / name).read_text(encoding="utf-8")


def prose(text: str) -> Markup:
    """A sentence out of a docstring, escaped, begun with a capital, with `names` as code."""
    return Markup(_CODE.sub(r"<code>\1</code>", str(escape(text[:1].upper() + text[1:]))))


def shares_json(frames: Sequence[Sequence[Any]]) -> str:
    """The probabilities of each picture of a morph, for the script; the template escapes them."""
    return json.dumps([[asdict(one) for one in shares] for shares in frames])


def cited(source: str) -> Markup:
    """A citation, escaped, with its arXiv numbers and DOIs as links."""

    def link(found: re.Match[str]) -> str:
        place = f"arxiv.org/abs/{found[1]}" if found[1] else f"doi.org/{found[2]}"
        return f'<a href="https://{place}" rel="noreferrer">{found[0]}</a>'

    return Markup(_REFERENCE.sub(link, str(escape(source))))
