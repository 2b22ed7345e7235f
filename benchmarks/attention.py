"""LRP on transformers: its time and memory as ratios to one forward pass and input gradient in plain torch."""

import json
import subprocess
import sys
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.backprop import MEMORY_GOAL, PROCESSES, peak_of
from benchmarks.measure import ROOT, ROUNDS, interleaved, one_thread, quantiles, ratio, save
from benchmarks.peers import TARGET, gradient
from whybox import LRP, Model, models
from whybox.models.torchvision_models import prepare_torchvision

GOAL = 1.25
TOKENS = 128


class Reader(nn.Module):
    """A BERT of the base size with a head of four classes, from the embeddings of its tokens on."""

    def __init__(self) -> None:
        super().__init__()
        prepare_torchvision()
        import transformers

        torch.manual_seed(0)
        config = transformers.BertConfig(vocab_size=2, num_labels=4)
        self.net = transformers.BertForSequenceClassification(config).eval()

    def forward(self, x: Tensor) -> Tensor:
        """The scores (n, 4) of embeddings (n, tokens, 768)."""
        scores: Tensor = self.net(inputs_embeds=x).logits
        return scores


def vit() -> tuple[Model, Tensor]:
    """ViT-B/16 and a picture of noise; its last layer is drawn anew, since torchvision fills it with zeros."""
    module = models.load("torchvision:vit_b_16", "random").module
    torch.manual_seed(0)
    nn.init.normal_(module.heads.head.weight, std=0.02)
    return Model(module, chunk=1), torch.randn(1, 3, 224, 224)


def bert() -> tuple[Model, Tensor]:
    """A BERT-base-sized encoder and a sequence of noise."""
    return Model(Reader().eval(), chunk=1), torch.randn(1, TOKENS, 768)


SUBJECTS = {"ViT-B/16": vit, "BERT-base-sized encoder": bert}


def main() -> None:
    """Measure both models, or, with arguments, the memory of one contender in this process."""
    one_thread()
    if sys.argv[1:]:
        name, contender = sys.argv[1:]
        model, x = SUBJECTS[name]()
        model(x)
        print(json.dumps(peak_of(_work(model, x, contender))))
        return
    settings = {
        "subjects": {"ViT-B/16": "1 × 224² pixels", "BERT-base-sized encoder": f"1 × {TOKENS} tokens"},
        "weights": "random, seed 0",
        "goal": GOAL,
        "memory goal": MEMORY_GOAL,
        "rounds": ROUNDS,
        "processes for memory": PROCESSES,
    }
    save("attention", settings, {name: measure(name) for name in SUBJECTS})


def measure(name: str) -> dict[str, Any]:
    """Time and memory on one model."""
    model, x = SUBJECTS[name]()
    timed = interleaved({each: _work(model, x, each) for each in ("gradient", "attn_lrp")})
    return {
        "timed": timed,
        "ratio": ratio(timed, "attn_lrp", "gradient"),
        "memory": {each: memory(name, each) for each in ("gradient", "attn_lrp")},
    }


def memory(name: str, contender: str) -> dict[str, Any]:
    """Over fresh processes: what the contender adds to the loaded model."""
    command = [sys.executable, "-m", "benchmarks.attention", name, contender]
    found = [
        json.loads(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        for _ in range(PROCESSES)
    ]
    return {"added": quantiles(each["peak"] - each["before"] for each in found)}


def _work(model: Model, x: Tensor, contender: str) -> Any:
    if contender == "gradient":
        return partial(gradient, model.module, x)
    return partial(LRP(contender), model, x, TARGET)


if __name__ == "__main__":
    main()
