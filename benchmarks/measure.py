"""Measuring: one thread, contenders interleaved, medians; and the JSON that keeps what was measured on what."""

import gc
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks/results"
CACHE = ROOT / ".benchmarks"
ROUNDS = 5

Work = Callable[[], Any]


def one_thread() -> None:
    """Let torch use a single thread in this process."""
    torch.set_num_threads(1)


def interleaved(contenders: Mapping[str, Work], rounds: int = ROUNDS) -> dict[str, dict[str, Any]]:
    """Time the contenders A B C A B C …, after a warm-up of each; wall and processor seconds of every round."""
    wall: dict[str, list[float]] = {name: [] for name in contenders}
    processor: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, work in contenders.items():
            gc.collect()
            began, used = time.perf_counter(), time.process_time()
            work()
            if number:
                wall[name].append(time.perf_counter() - began)
                processor[name].append(time.process_time() - used)
    return {
        name: {
            "seconds": statistics.median(wall[name]),
            "processor_seconds": statistics.median(processor[name]),
            "all_seconds": wall[name],
            "all_processor_seconds": processor[name],
        }
        for name in contenders
    }


def ratio(timed: Mapping[str, Mapping[str, Any]], name: str, against: str) -> dict[str, float]:
    """The median over the rounds of one contender's seconds over another's in the same round."""

    def median(key: str) -> float:
        return statistics.median(a / b for a, b in zip(timed[name][key], timed[against][key], strict=True))

    return {"wall": median("all_seconds"), "processor": median("all_processor_seconds")}


def tuned(candidates: Mapping[Any, Work], repeats: int = 2) -> tuple[Any, dict[str, float]]:
    """The fastest candidate by the shorter of a few runs, and the processor seconds of all."""
    seconds = {}
    for _ in range(repeats):
        for setting, work in candidates.items():
            began = time.process_time()
            work()
            seconds[setting] = min(seconds.get(setting, float("inf")), time.process_time() - began)
    return min(seconds, key=lambda setting: seconds[setting]), {str(key): value for key, value in seconds.items()}


class Counted(nn.Module):
    """Counts how many samples pass a module forward and backward."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module, self.forwards, self.backwards = module, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        """The module's output."""
        self.forwards += len(x)
        output: Tensor = self.module(x)
        if output.requires_grad:
            output.register_hook(self._add)
        return output

    def _add(self, gradient: Tensor) -> None:
        self.backwards += len(gradient)


def evaluations(module: nn.Module, work: Callable[[nn.Module], Any]) -> dict[str, int]:
    """How many samples `work(module)` sends forward and backward."""
    counted = Counted(module).eval()
    work(counted)
    return {"forwards": counted.forwards, "backwards": counted.backwards}


def quantiles(values: Iterable[float]) -> dict[str, float]:
    """Median, mean, smallest and largest."""
    values = list(values)
    return {
        "median": statistics.median(values),
        "mean": statistics.fmean(values),
        "min": min(values),
        "max": max(values),
    }


def save(name: str, settings: Mapping[str, Any], results: Any) -> None:
    """Write benchmarks/results/NAME.json: the results with settings, versions and commit."""
    content = {
        "benchmark": name,
        "settings": dict(settings),
        "environment": environment(),
        "results": results,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}.json").write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n")


def saved(name: str) -> dict[str, Any]:
    """The results in benchmarks/results/NAME.json, none where there is no such file."""
    file = RESULTS / f"{name}.json"
    return json.loads(file.read_text())["results"] if file.exists() else {}  # type: ignore[no-any-return]


def environment() -> dict[str, Any]:
    """The kind of machine, the versions and the commit."""
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "python": platform.python_version(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[2], 1),
        "threads": torch.get_num_threads(),
        **{name: _version(name) for name in ("whybox", "torch", "torchvision", "captum", "zennit", "quantus", "numpy")},
    }


def commit() -> str:
    """The commit of the working tree, with "+" where what is measured has been changed since."""
    try:
        head = _git("rev-parse", "--short=12", "HEAD")
        return head + ("+" if _git("status", "--porcelain", "--", "src", "benchmarks/*.py") else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(*arguments: str) -> str:
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
