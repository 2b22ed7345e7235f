"""The house: imports point one way, files stay short."""

import ast
from pathlib import Path

import pytest

import whybox

ROOT = Path(whybox.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))

# Which rooms a room may import besides itself; `explaining` and the command line are rooms of one file or folder.
MAY_IMPORT = {
    "core": set(),
    "attribution": {"core"},
    "contrast": {"core", "attribution", "datasets"},
    "evaluation": {"core", "attribution", "contrast"},
    "explaining": {"core", "attribution", "contrast", "evaluation"},
    "inspection": {"core", "attribution"},
    "models": {"core"},
    "datasets": {"core"},
    "plot": {"core"},
    "report": {"core", "attribution", "contrast", "evaluation", "explaining", "plot"},
    "text": {"core", "attribution", "explaining"},
}
# Explanations and comparisons draw and write themselves.
DRAWN = ("core/explanation.py", "evaluation/comparison.py")
EXCEPTIONS = {(path, other) for path in DRAWN for other in ("plot", "report")}


def room(path):
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported(tree):
    """The rooms that a module imports, wherever in the file, except for type checkers only."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            for part in node.body:
                part.names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.names:
            assert node.level == 0, "imports are absolute"
            names = [node.module]
            if node.module == "whybox":
                names = [f"whybox.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (name.split(".")[1] for name in names if name.startswith("whybox."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path):
    here = room(path)
    allowed = MAY_IMPORT.get(here)
    if allowed is None:
        assert here in ("cli", "__init__", "__main__", "_version"), f"say in this test what {here} may import"
        return
    for other in imported(ast.parse(path.read_text())):
        fine = other in allowed or other in (here, "_version")
        assert fine or (str(path.relative_to(ROOT)), other) in EXCEPTIONS, f"{path.name} imports {other}"


@pytest.mark.parametrize("path", DRAWN)
def test_the_exceptions_are_inside_of_functions(path):
    tree = ast.parse((ROOT / path).read_text())
    for node in tree.body:
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            assert not set(imported(ast.Module([node], []))) & {"plot", "report"}


def test_the_walk_sees_imports():
    code = "import whybox.plot\nfrom whybox import report\ndef f():\n    from whybox.cli.app import main\n"
    code += "if TYPE_CHECKING:\n    from whybox.models import load\n"
    assert set(imported(ast.parse(code))) == {"plot", "report", "cli"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_stay_short(path):
    assert len(path.read_text().splitlines()) < 300
