"""Run the benchmarks, each in a process of its own, and write docs/benchmarks.md: `python -m benchmarks [NAME…]`."""

import argparse
import os
import subprocess
import sys
import time

from benchmarks import table
from benchmarks.measure import ROOT

NAMES = (
    "start_up", "stream", "speed", "backprop", "recurrence", "perturbation", "evaluation", "shapley", "memory",
    "integrated_gradients", "contrast",
)  # fmt: skip


def main() -> None:
    """Read the command line, run, and write the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which to run: {', '.join(NAMES)}; all by default")
    asked = parser.parse_args().names
    if set(asked) - set(NAMES):
        parser.error(f"there is no benchmark {sorted(set(asked) - set(NAMES))[0]!r}; there are {', '.join(NAMES)}")
    failed = []
    for name in asked or NAMES:
        print(f"{name} …", flush=True)
        began = time.perf_counter()
        run = subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}"],
            cwd=ROOT,
            env={**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"},
            check=False,
        )
        print(f"{name}: {'done' if run.returncode == 0 else 'FAILED'} in {time.perf_counter() - began:.0f} s")
        failed += [name] * (run.returncode != 0)
    print(table.write())
    sys.exit(f"failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
