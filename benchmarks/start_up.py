"""How long `import whybox` and `whybox --help` take."""

import statistics
import subprocess
import sys
import sysconfig
import time
from pathlib import Path
from typing import Any

from benchmarks.measure import one_thread, save

ROUNDS = 9
PROGRAMS = {
    "import whybox after torch": "import torch; {begin}; import whybox; {end}",
    "import whybox alone": "{begin}; import whybox; {end}",
    "import torch": "{begin}; import torch; {end}",
    "import captum.attr after torch": "import torch; {begin}; import captum.attr; {end}",
    "a first method after torch": "import torch; {begin}; import whybox; whybox.SmoothGrad(); {end}",
}


def main() -> None:
    """Measure in fresh processes, interleaved."""
    one_thread()
    command = Path(sysconfig.get_path("scripts")) / "whybox"
    seconds: dict[str, list[float]] = {name: [] for name in PROGRAMS}
    whole: dict[str, list[float]] = {"python -c pass": []}
    if command.exists():
        whole["whybox --help"] = []
    for number in range(ROUNDS + 1):  # the first fills the file cache
        for name, program in PROGRAMS.items():
            took = inside(program)
            seconds[name] += [took] * (number > 0)
        for name, took_by in whole.items():
            call = [str(command), "--help"] if name == "whybox --help" else [sys.executable, "-c", "pass"]
            took = outside(call)
            took_by += [took] * (number > 0)
    results: dict[str, Any] = {
        name: {"seconds": statistics.median(values), "all_seconds": values}
        for name, values in {**seconds, **whole}.items()
    }
    goals = {"import whybox after torch": 0.1, "whybox --help": 0.3}
    save("start_up", {"rounds": ROUNDS, "goals": goals}, results)


def inside(program: str) -> float:
    """Seconds between begin and end of a program, as it says itself."""
    code = "import time; " + program.format(
        begin="began = time.perf_counter()", end="print(time.perf_counter() - began)"
    )
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def outside(call: list[str]) -> float:
    """Seconds from the start of a process to its end."""
    began = time.perf_counter()
    subprocess.run(call, capture_output=True, check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
