"""The NeuroMask experiment: the command runs, goes on after a kill, and says the same numbers."""

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

from whybox import NeuroMask
from whybox.core.reference import Black

ROOT = Path(__file__).parents[2]
# The command, with short searches; the process is killed while the 23rd file, of the second block, is being written.
KILLED = """
import os, runpy, signal
from dataclasses import replace
from experiments.common import kept
from experiments.neuromask import entries

for entry in (*entries.ROWS, *entries.SEARCHES):
    if hasattr(entry.method, "steps"):
        object.__setattr__(entry, "method", replace(entry.method, steps=12))
save, left = kept.save_file, [23]

def deadly(tensors, path, metadata):
    save(tensors, path, metadata)
    left[0] -= 1
    if not left[0]:
        os.kill(os.getpid(), signal.SIGKILL)

kept.save_file = deadly
runpy.run_module("experiments.neuromask", run_name="__main__")
"""


@pytest.fixture
def experiment(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The experiment's package, with its modules and with short searches; it works with one thread."""
    monkeypatch.syspath_prepend(str(ROOT))
    import experiments.neuromask.__main__  # it imports all others
    from experiments.neuromask import entries

    known = {entry: entry.method for entry in (*entries.ROWS, *entries.SEARCHES)}
    for entry, method in known.items():
        if isinstance(method, NeuroMask):
            object.__setattr__(entry, "method", replace(method, steps=12))
    threads = torch.get_num_threads()
    yield experiments.neuromask
    torch.set_num_threads(threads)
    for entry, method in known.items():
        object.__setattr__(entry, "method", method)


def arguments(folder: Path) -> list[str]:
    """Six digits, kept and written in this folder."""
    return ["--data", "digits", "--count", "6", "--folder", str(folder)]


def found(folder: Path) -> dict[str, Any]:
    """The numbers that a run has written, without its seconds."""
    content = json.loads((folder / "experiments/neuromask.json").read_text(encoding="utf-8"))
    for one in content["found"]:
        for entry in one["entries"].values():
            entry.pop("seconds")
    return content


def test_a_killed_run_goes_on_and_says_the_same(
    experiment: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    died = subprocess.run(
        [sys.executable, "-c", KILLED, *arguments(killed)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join((str(ROOT / "src"), str(ROOT)))},
        check=False,
    )
    assert died.returncode == -signal.SIGKILL
    kept = {path: path.stat().st_mtime_ns for path in (killed / "digits").rglob("*.safetensors")}
    assert len(kept) == 22
    for folder in (killed, whole):
        monkeypatch.setattr(sys, "argv", ["neuromask", *arguments(folder)])
        experiment.__main__.main()
    assert {path: path.stat().st_mtime_ns for path in kept} == kept  # nothing was measured twice
    assert found(killed) == found(whole)
    assert "| NeuroMask, moved |" in capsys.readouterr().out
    for number in (2, 3, 4):
        assert (killed / f"figures/neuromask_{number}.webp").is_file()
        assert (killed / f"neuromask_{number}.webp").is_file()  # with the pictures


def test_what_is_said_of_what_a_map_leaves(experiment: ModuleType, tmp_path: Path) -> None:
    """Against the model asked one picture at a time."""
    subject = experiment.subjects.digits(4, tmp_path)
    experiment.measure.measure(subject, tmp_path)
    rows = {row.name: row for row in experiment.entries.ROWS}
    mask, gradient, moved = (
        load_file(next(rows[name].paths(subject, tmp_path))[0])
        for name in ("NeuroMask", "sensitivity analysis", "NeuroMask, moved")
    )
    assert torch.equal(moved["map"], mask["map"].roll((4, 4), (1, 2)))
    inputs, model = subject.inputs(0, 4), subject.model
    black = Black().fill(inputs, model.domain_of(inputs), [])
    for picture in range(4):
        target = int(model(inputs[picture : picture + 1]).argmax())

        def kept(m: torch.Tensor, picture: int = picture, target: int = target, mirror: bool = False) -> float:
            x = m * inputs[picture] + (1 - m) * black[picture]
            return float(model(x.flip(-1)[None] if mirror else x[None]).softmax(1)[0, target].detach())

        m = mask["map"][picture]
        assert float(mask["dimmed"][picture]) == pytest.approx(kept(m), abs=1e-5)
        assert float(mask["dimmed|mirrored"][picture]) == pytest.approx(kept(m, mirror=True), abs=1e-5)
        assert float(mask["light"][picture]) == pytest.approx(float(m.mean()), abs=1e-6)
        values, count = gradient["map"][picture], max(1, round(float(m.sum())))
        best = (values >= values.flatten().sort(descending=True).values[count - 1]).float()
        assert best.sum() == count
        assert float(gradient["equal"][picture]) == pytest.approx(kept(best), abs=1e-5)
    other = load_file(next(experiment.entries.OTHER.paths(subject, tmp_path))[0])
    classes = model(inputs).argmax(1)
    assert other["whole"].tolist() == pytest.approx(
        model(inputs).softmax(1)[torch.arange(4), (classes + 5) % 10].tolist(), abs=1e-5
    )


def test_maps_as_masks_of_equal_light(experiment: ModuleType) -> None:
    relevance = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0)) - 0.5
    light = torch.tensor([0.5, 8.0, 64.0], dtype=torch.float64)
    masks = experiment.measure.dimmed(relevance, light)
    positive = (relevance > 0).flatten(1).sum(1).double()
    assert masks.flatten(1).sum(1).tolist() == pytest.approx(torch.minimum(light, positive).tolist(), rel=1e-6)
    assert (masks[relevance < 0] == 0).all()
    factor = masks[0] / relevance[0].clamp_min(0).double()
    assert factor[relevance[0] > 0].std() < 1e-6  # where nothing is clipped, the map itself
    flat = experiment.measure.dimmed(torch.ones(1, 1, 8, 8), torch.tensor([16.0], dtype=torch.float64))
    assert flat.flatten().tolist() == pytest.approx([0.25] * 64, rel=1e-6)
    assert not experiment.measure.dimmed(torch.zeros(1, 1, 8, 8), light[:1]).any()


def test_masks_alike(experiment: ModuleType) -> None:
    masks = torch.rand(7, 10, 10, generator=torch.Generator().manual_seed(0))
    same, other = (experiment.numbers._pair(masks, masks, shift) for shift in (0, 1))
    assert [value[0] for value in list(same.values())[1:]] == [1, 1, 1]
    assert abs(other["rank correlation"][0]) < 0.15
    assert other["m > ½"][0] == pytest.approx(1 / 3, abs=0.06)


def test_the_page_says_what_the_numbers_say(experiment: ModuleType) -> None:
    out = ROOT / "docs/experiments"
    content = json.loads((out / "neuromask.json").read_text(encoding="utf-8"))
    page = (out / "neuromask.md").read_text(encoding="utf-8")
    between = page.partition(experiment.page.BEGIN)[2].partition(experiment.page.END)[0].strip()
    assert between == experiment.page.tables(content["found"])
