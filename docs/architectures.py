"""Write docs/architectures.md: what the backprop engine does on real architectures, as the tests measure it."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests/attribution/backprop"))

from architectures import ARCHITECTURES, examine, table  # noqa: E402 (the path comes first)


def main() -> None:
    """Examine every architecture and write the page."""
    rows = [examine(architecture) for architecture in ARCHITECTURES]
    (HERE / "architectures.md").write_text(table(rows), encoding="utf-8")


if __name__ == "__main__":
    main()
