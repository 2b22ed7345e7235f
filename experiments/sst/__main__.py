"""Signs and deletion of words with two nets trained on SST: `python -m experiments.sst` (minutes on one core).

Reads the sentences from the folder that WHYBOX_DATA names. The nets are kept beside this file; `--train` trains them
anew (half a minute). What was measured is kept in docs/experiments/sst.json as it comes. Writes the tables and figures
of docs/experiments/sst.md.
"""

import argparse
import json
import os

import torch
from experiments.common.data import ROOT
from experiments.sst import page
from experiments.sst.measure import measured
from experiments.sst.nets import NETS, Vocabulary, load, train

OUT = ROOT / "docs/experiments"


def main() -> None:
    """Measure what is not known yet, then write."""
    parser = argparse.ArgumentParser(prog="python -m experiments.sst", description=__doc__.partition("\n")[0])
    parser.add_argument("--train", action="store_true", help="train the nets anew, and measure them anew")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    vocabulary, path = Vocabulary(), OUT / "sst.json"
    known = json.loads(path.read_text()) if path.exists() and not asked.train else {}
    nets = {}
    for name in NETS:
        if asked.train:
            train(name, vocabulary)
        nets[name] = load(name, vocabulary)
        if name not in known:
            known[name] = measured(nets[name], vocabulary)
            part = path.with_suffix(".part")
            part.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
            os.replace(part, path)
    page.write(known, nets, vocabulary, OUT)


if __name__ == "__main__":
    main()
