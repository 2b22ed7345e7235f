"""Train the embedded digits model: `python experiments/train_digits.py` (about a minute on one core).

Writes src/whybox/models/digits.safetensors and prints the accuracy on the held-out split, which it never trains on
and never selects by: the last epoch is what is saved.
"""

import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from whybox import datasets
from whybox.models.digits import digits_net

EPOCHS = 300
BATCH = 64
SEED = 0
OUT = Path(__file__).parents[1] / "src/whybox/models/digits.safetensors"


def augment(images: Tensor) -> Tensor:
    """Each digit turned by up to 12 degrees, scaled by up to 10 % and shifted by up to 0.8 pixels."""
    n = len(images)
    angle = (torch.rand(n) * 2 - 1) * math.radians(12)
    scale = 1 + (torch.rand(n, 2) * 2 - 1) * 0.1
    shift = (torch.rand(n, 2) * 2 - 1) * 0.2  # the picture spans −1 to 1: 0.2 are 0.8 of 8 pixels
    cos, sin = angle.cos(), angle.sin()
    matrix = torch.stack([cos * scale[:, 0], -sin, shift[:, 0], sin, cos * scale[:, 1], shift[:, 1]], 1).view(n, 2, 3)
    return F.grid_sample(images, F.affine_grid(matrix, list(images.shape), align_corners=False), align_corners=False)


def main() -> None:
    """Train, test, save."""
    torch.set_num_threads(1)
    torch.manual_seed(SEED)
    images, labels = datasets.load("digits", split="train")
    test_images, test_labels = datasets.load("digits", split="test")
    net = digits_net()
    for layer in net.children():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)
    steps = EPOCHS * math.ceil(len(images) / BATCH)
    optimiser = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=3e-3, total_steps=steps)
    for epoch in range(EPOCHS):
        for batch in torch.randperm(len(images)).split(BATCH):
            loss = F.cross_entropy(net(augment(images[batch])), labels[batch], label_smoothing=0.05)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
        if epoch % 10 == 9:
            print(f"epoch {epoch + 1:3d}  loss {loss.item():.3f}", flush=True)
    with torch.no_grad():
        right = (net.eval()(test_images).argmax(1) == test_labels).sum().item()
    print(f"held-out accuracy {right / len(test_labels):.4f} ({right} of {len(test_labels)})")
    save_file(net.state_dict(), OUT)


if __name__ == "__main__":
    main()
