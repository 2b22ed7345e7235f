"""Contrasts, after Feghahati et al. 2020: `python -m experiments.contrast WHAT`.

WHAT is `mnist` (half an hour): 500 test digits; `eights` (half an hour): a classifier that knows an eight by a square
in the corner; `fashion` (half an hour): what two kinds of net take for the difference between garments; or
`table` (a minute): rows of tables that come with scikit-learn, and of one with planted columns. Data other than tables
are read from the folder that WHYBOX_DATA names. What was measured is kept as it comes: a run that was stopped goes on
where it was, and one with fewer samples uses and leaves the blocks of a larger one. Writes the numbers, the figures and
the tables of the experiment's page in docs/experiments.
"""

import argparse
from pathlib import Path

import torch
from experiments.common.data import ROOT
from experiments.contrast import digits
from experiments.contrast.eights import experiment as eights
from experiments.contrast.fashion import experiment as fashion
from experiments.contrast.table import experiment as table

EXPERIMENTS = {"mnist": digits, "eights": eights, "fashion": fashion, "table": table}


def main() -> None:
    """Measure what is not known yet, then write."""
    parser = argparse.ArgumentParser(prog="python -m experiments.contrast", description=__doc__.partition("\n")[0])
    parser.add_argument("what", choices=EXPERIMENTS)
    parser.add_argument("--count", type=int, help="how many digits, garments for each question, or rows of each table")
    parser.add_argument("--folder", type=Path, default=ROOT / "build/contrast", help="where measurements are kept")
    parser.add_argument("--out", type=Path, help="where to write; docs for the whole, else the folder")
    asked = parser.parse_args()
    experiment = EXPERIMENTS[asked.what]
    count = asked.count or experiment.COUNT
    out = asked.out or (ROOT / "docs" if count == experiment.COUNT else asked.folder)
    torch.set_num_threads(1)
    for folder in (asked.folder / asked.what, out / "experiments", out / "figures"):
        folder.mkdir(parents=True, exist_ok=True)
    experiment.run(count, asked.folder, out)


if __name__ == "__main__":
    main()
