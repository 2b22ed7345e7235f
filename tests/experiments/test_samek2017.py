"""The reproduction of Samek et al. 2017: the command runs, goes on after a kill, and says the same numbers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

ROOT = Path(__file__).parents[2]
# The command, but the process is killed while the fifth file is being written.
KILLED = """
import os, runpy, signal
from experiments.common import kept

save, left = kept.save_file, [5]

def deadly(tensors, path, metadata):
    save(tensors, path, metadata)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

kept.save_file = deadly
runpy.run_module("experiments.samek2017", run_name="__main__")
"""


@pytest.fixture
def samek(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The experiment's package, with its modules; it works with one thread."""
    monkeypatch.syspath_prepend(str(ROOT))
    import experiments.samek2017.__main__  # it imports all others

    threads = torch.get_num_threads()
    yield experiments.samek2017
    torch.set_num_threads(threads)


def arguments(folder: Path) -> list[str]:
    """Six digits, kept and written in this folder."""
    return ["--data", "digits", "--count", "6", "--folder", str(folder)]


def found(folder: Path) -> dict[str, Any]:
    """The numbers that a run has written, without its seconds."""
    content = json.loads((folder / "samek2017.json").read_text(encoding="utf-8"))
    for one in (*content["found"], *(one["ablations"] for one in content["found"])):
        for entries in one["infills"].values():
            for entry in entries.values():
                assert entry.pop("processor seconds") >= 0
                entry.pop("forwards")  # an interrupted run asks for the originals once more
    return content


def test_a_killed_run_goes_on_and_says_the_same(
    samek: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    died = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments(killed)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))},
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in (killed / "curves").rglob("*.safetensors")}
    assert len(kept) == 4
    assert not (killed / "samek2017.json").exists()
    for folder in (killed, whole):
        monkeypatch.setattr(sys, "argv", ["samek2017", *arguments(folder)])
        samek.__main__.main()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # nothing was measured twice
    assert found(killed) == found(whole)
    assert "| digits | blur | logit |" in capsys.readouterr().out
    assert (killed / "samek2017_probability.png").is_file()


def test_the_curves_against_loops(samek: ModuleType, tmp_path: Path) -> None:
    subject = samek.subjects.digits(3, tmp_path)
    entry = samek.measure.LRPS[2]  # no two regions with the same relevance
    samek.measure.measure(subject, (entry,), tmp_path)
    measured = load_file(entry.path(tmp_path, subject, "blur", 0, 3))
    assert measured["forwards"] + load_file(entry.path(tmp_path, subject, "uniform noise", 0, 3))["forwards"] == 27

    inputs = subject.inputs(0, 3)
    relevance = entry.method(subject.model, inputs)
    blurred = subject.infills["blur"].fill(inputs, subject.model.domain, [])
    for picture in range(3):
        corners = [(row, column) for row in range(0, 8, 2) for column in range(0, 8, 2)]
        sums = {(r, c): float(relevance[picture, :, r : r + 2, c : c + 2].double().sum()) for r, c in corners}
        x, fallen = inputs[picture].clone(), []
        target = int(subject.model(x[None]).argmax())
        first = subject.model(x[None]).softmax(1)[0, target].item()
        for number, (r, c) in enumerate(sorted(corners, key=lambda corner: -sums[corner]), start=1):
            x[:, r : r + 2, c : c + 2] = blurred[picture, :, r : r + 2, c : c + 2]
            if number in (2, 4, 6, 8):
                fallen.append(first - subject.model(x[None]).softmax(1)[0, target].item())
        assert measured["AOPC probability"][picture] == pytest.approx(sum(fallen) / 5, abs=1e-6)
        assert measured["correct"][picture] == (target == subject.labels[picture])


def test_what_was_measured_otherwise_is_measured_anew(samek: ModuleType, tmp_path: Path) -> None:
    subject = samek.subjects.digits(3, tmp_path)
    signed = samek.measure.LRPS[0]
    unsigned = replace(signed, use="magnitude")  # under the same name
    path = signed.path(tmp_path, subject, "blur", 0, 3)
    curves = []
    for entry in (signed, unsigned, signed):
        samek.measure.measure(subject, (entry,), tmp_path)
        curves.append(load_file(path)["probability"])
    assert not torch.equal(curves[0], curves[1])
    assert torch.equal(curves[0], curves[2])


def test_bootstrap_intervals(samek: ModuleType) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(400, generator=generator, dtype=torch.float64)
    first, second, third = samek.numbers.bootstrap(torch.stack((values, values + 1, torch.ones_like(values)), 1))
    assert first[0] == pytest.approx(float(values.mean()), abs=1e-4)
    half = 1.96 * float(values.std()) / 20
    assert first[1] == pytest.approx(first[0] - half, abs=half / 10)
    assert first[2] == pytest.approx(first[0] + half, abs=half / 10)
    assert second == pytest.approx([value + 1 for value in first], abs=2e-4)  # the same resamples for every column
    assert third == [1, 1, 1]


def test_the_page_says_what_the_numbers_say(samek: ModuleType) -> None:
    out = ROOT / "docs/experiments"
    content = json.loads((out / "samek2017.json").read_text(encoding="utf-8"))
    page = (out / "samek2017.md").read_text(encoding="utf-8")
    between = page.partition(samek.page.BEGIN)[2].partition(samek.page.END)[0].strip()
    assert between == samek.page.tables(content["found"])
