"""Run the checks and write docs/experiments/trust.md: `python -m experiments.trust [PART…]` (minutes on two cores).

What each part finds is kept in experiments/trust/results.json as soon as it is known, so that a run that was stopped
goes on where it was; a part is measured anew when the code of these checks or the version of whybox has changed, or
when it is named. Ends with an error if an expected order does not come out.
"""

import argparse
import hashlib
import importlib
import json
import math
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from experiments.trust import PARTS, page

from whybox.core.explanation import versions

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"


def main() -> None:
    """Read the command line, measure what is missing, write the page."""
    parser = argparse.ArgumentParser(prog="python -m experiments.trust", description=__doc__.partition("\n")[0])
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"measure these anew: {', '.join(PARTS)}")
    asked = parser.parse_args().parts
    unknown = sorted(set(asked) - set(PARTS))
    if unknown:
        parser.error(f"there is no part {unknown[0]!r}; there are {', '.join(PARTS)}")
    torch.set_num_threads(1)
    known = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    for name in PARTS:
        if name in asked or name not in known or known[name]["code"] != _code(name):
            known[name] = _plain(_measured(name))
            _keep(known)
        for order in known[name]["orders"]:
            print(f"{name}: {'as expected' if order['holds'] else 'NOT AS EXPECTED'}: {order['says']}", flush=True)
    print(page.write(known))
    sys.exit(any(not order["holds"] for part in known.values() for order in part["orders"]))


def _measured(name: str) -> dict[str, Any]:
    """One part's findings, and on what they were made."""
    print(f"{name} …", flush=True)
    code, began = _code(name), time.process_time()
    record = importlib.import_module(f"experiments.trust.{name}").measure().record()
    commit = subprocess.run(
        ["git", "describe", "--always", "--dirty=+", "--exclude=*"],
        cwd=HERE,
        capture_output=True,
        text=True,
        check=False,
    )
    return {
        **record,
        "seconds": round(time.process_time() - began, 1),
        "code": code,
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit.stdout.strip(),
        "versions": versions(),
    }


def _code(name: str) -> str:
    """A digest of the code that makes the part's findings."""
    shared = sorted(file for file in HERE.glob("*.py") if file.stem not in {*PARTS, "page", "__main__"})
    digest = hashlib.sha256(versions()["whybox"].encode())
    for file in (*shared, HERE / f"{name}.py"):
        digest.update(file.read_bytes())
    return digest.hexdigest()[:16]


def _keep(known: dict[str, Any]) -> None:
    """Write the findings so far; the file is replaced whole, and so never torn."""
    ordered = {name: known[name] for name in PARTS if name in known}
    part = RESULTS.with_suffix(".part")
    part.write_text(json.dumps(ordered, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    os.replace(part, RESULTS)


def _plain(value: Any) -> Any:
    """With null for numbers that are none, which JSON does not have."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list):
        return list(map(_plain, value))
    return None if isinstance(value, float) and math.isnan(value) else value


if __name__ == "__main__":
    main()
