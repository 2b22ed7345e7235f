"""The documentation is true: its code runs and prints what it says, and what is generated is up to date."""

import contextlib
import importlib.util
import io
import re
import shlex
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from whybox.cli import app
from whybox.models.torchvision_models import prepare_torchvision

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

_BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.MULTILINE | re.DOTALL)
_COMMAND = re.compile(r"^\$ whybox (.*)$", re.MULTILINE)
_LINK = re.compile(r"\]\((?!https?://)([^)#]+)(?:#[^)]*)?\)")
_IMPORT = re.compile(r"^\s*(?:import|from) (\w+)", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page: its language, the file it stands for (or ""), its text, and the line it begins on."""

    language: str
    file: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text(encoding="utf-8")
    return [Block(m[1], m[2] or "", m[3], text.count("\n", 0, m.start()) + 2) for m in _BLOCK.finditer(text)]


def run_python(block: Block, page: Path, names: dict[str, Any]) -> str:
    """What the block prints; the lines of the page are those of the traceback."""
    code = compile("\n" * (block.line - 1) + block.text, str(page), "exec")
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(code, names)
    return printed.getvalue()


def run_commands(block: Block) -> str:
    printed = ""
    for command in _COMMAND.findall(block.text):
        result = CliRunner().invoke(app, shlex.split(command))
        assert result.exit_code == 0, f"{command}: {result.output}"
        printed += result.stdout
    return printed


def as_pattern(text: str) -> str:
    """A regular expression for what a block says is printed, in which … stands for anything."""
    return ".*".join(map(re.escape, text.split("…")))


def missing(block: Block) -> list[str]:
    """The optional packages that a block imports and that are not here."""
    return [
        name
        for name in _IMPORT.findall(block.text)
        if name in ("captum", "zennit", "tokenizers", "transformers") and find_spec(name) is None
    ]


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of its own to work in, from which modules can be imported; one thread, best for small models."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    prepare_torchvision()  # zennit imports it
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_code_of_a_page_runs_and_prints_what_it_says(page: Path, scratch: Path) -> None:
    names: dict[str, Any] = {"__name__": "__main__"}
    printed = ""
    for block in blocks(page):
        if block.language == "python" and missing(block):
            pytest.skip(f"from line {block.line} on: needs {missing(block)[0]} (the extra 'bench' or 'hf')")
        if block.file:
            (scratch / block.file).write_text(block.text, encoding="utf-8")
        elif block.language == "python":
            printed = run_python(block, page, names)
        elif block.language == "console":
            printed = run_commands(block)
        elif block.language == "text":
            says = f"{page.name}, line {block.line}: printed was\n{printed}"
            assert re.fullmatch(as_pattern(block.text.strip()), printed.strip(), re.DOTALL), says


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
    gone = [link for link in _LINK.findall(text) if not (page.parent / link).exists()]
    assert not gone


def test_what_is_generated_is_up_to_date() -> None:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs/generate.py")
    assert spec is not None
    assert spec.loader is not None
    generate = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(generate)
    stale = [name for name, text in generate.pages().items() if (ROOT / name).read_text(encoding="utf-8") != text]
    assert not stale, "run `python docs/generate.py`"


def test_every_page_can_be_reached() -> None:
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    lost = [name for name in NAMES if name.startswith("docs/") and f": {name.removeprefix('docs/')}\n" not in menu]
    assert not lost


def test_the_figures_of_the_readme_are_small() -> None:
    assert (ROOT / "docs/figures/readme.png").stat().st_size < 150_000


def test_every_direct_dependency_is_pinned() -> None:
    def bare(requirement: str) -> str:
        return re.split(r"[\s\[<>=!~;]", requirement)[0].lower().replace("_", "-")

    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = {bare(r) for part in (project["dependencies"], *project["optional-dependencies"].values()) for r in part}
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    assert wanted - {"whybox"} <= {bare(line) for line in lines if "==" in line}
