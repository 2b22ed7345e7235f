import json
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from whybox.cli import app
from whybox.datasets import load

MODEL = """
import torch
import whybox
from torch import nn
from whybox.models import ImagePreprocess

def colours():
    torch.manual_seed(0)
    module, preprocess = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)), ImagePreprocess(resize=(8, 8))
    return whybox.Model(module, name="colours", preprocess=preprocess, labels=["a", "b", "c"])
"""
ASKED = ("contrast", "four.png", "--model", "digits")


def run(*argv: str) -> Result:
    with mock.patch.object(sys, "argv", ["whybox", *argv]):
        return CliRunner().invoke(app, argv, catch_exceptions=False)


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder but for a 4, noise, and a model for pictures in colour; one thread."""
    monkeypatch.chdir(tmp_path)
    inputs, _ = load("digits", split="test")
    assert isinstance(inputs, torch.Tensor)
    Image.fromarray((inputs[94, 0].numpy() * 255).astype(np.uint8)).save("four.png")
    noise = np.random.default_rng(0).integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(noise).save("noise.png")
    Path("models.py").write_text(MODEL)


def test_why_four_and_not_nine() -> None:
    result = run(*ASKED, "--versus", "9", "-o", "report.html", "--json", "report.json")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    said = " ".join(result.stdout.split())
    assert "Solved: 4 falls from 93 % to" in said
    assert "Why 4 and not 9?" in said
    assert "9 rises from" in said
    assert "The latent model knows this input" in said
    assert result.stdout.splitlines()[-1] == "report.html"
    page = Path("report.html").read_text()
    assert "What would have to change" in page
    assert 'class="morph"' in page
    assert "target=[4], versus=[9]" in page
    [model] = json.loads(Path("report.json").read_text())["models"]
    change = model["pictures"][0]["explanations"][0]["change"]
    assert (change["true"], change["probe"]) == (4, 9)


def test_without_versus_it_is_the_runner_up_and_the_latent_model_may_not_know_the_input() -> None:
    result = run("contrast", "four.png", "noise.png", "--model", "digits")
    assert result.exit_code == 0, result.output
    said = " ".join(result.stdout.split())
    assert "the score of 4 minus that of 9" in said
    assert "The latent model does not know this input" in said
    assert Path("whybox-contrast.html").exists()


def test_the_true_class_can_be_said() -> None:
    result = run(*ASKED, "--true", "9", "--versus", "4")
    assert result.exit_code == 0, result.output
    assert "Why 9 and not 4?" in Path("whybox-contrast.html").read_text()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (("--versus", "4"), "predicts class 4, which --versus names, for 'four.png' itself"),
        (("--true", "4", "--versus", "4"), "--target and --versus name the same class, 4"),
        (("--versus", "banana"), "there is no class 'banana'"),
        (("--versus", "12"), "class 12 is out of range"),
        (("--latent", "no.latent"), "there is no file 'no.latent'"),
        (("--latent", "models.py"), "models.py is damaged, or no latent model"),
    ],
)
def test_what_was_asked_wrongly(argv: tuple[str, ...], message: str) -> None:
    result = run(*ASKED, *argv)
    assert result.exit_code == 2
    assert message in result.stderr
    assert not Path("whybox-contrast.html").exists()


def test_a_latent_model_of_other_data() -> None:
    result = run("contrast", "four.png", "--model", "models.py:colours")
    assert result.exit_code == 2
    assert "the latent model draws samples of shape (1, 8, 8)" in result.stderr
    assert "Train one on the model's own data" in result.stderr
