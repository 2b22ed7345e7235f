"""A small BAM: digits on textures, with nets that were taught the one or the other."""

import torch
from experiments.trust.methods import (
    CONTROLS,
    EVERYTHING,
    GRAD_CAM,
    GUIDED,
    INPUT_X_GRADIENT,
    INTEGRATED,
    METHODS,
    SENSITIVITY,
)
from experiments.trust.nets import dense, pooled, predicted, share, trained
from experiments.trust.outcome import Outcome
from experiments.trust.pictures import Pasted, pasted
from torch import Tensor, nn

from whybox import Method, RelevanceMass

TITLE = "Digits on textures"
TEXT = """A small BAM (Yang & Kim 2019, arXiv 1907.09701): a digit pasted on one of ten textures, drawn independently.
g is the share of the relevance in the box of the digit, a quarter of the picture.

- Model contrast: g by a net that was taught the digits − g by one that was taught the textures, on the same pictures.
- Input dependence: of how many pictures the net for textures has less relevance in the box with the digit, which it
  ignores, than with the texture that is there otherwise.
- Input independence: of how many textures g changes by less than a tenth, |g(x + δ) − g(x)| < 0.1 g(x), when a patch
  δ is put on that does not matter: begun as a digit, and fitted so that the logits of a net that never saw a digit
  stay as they were. Maps that look at neither the model nor the picture have 1 there: it is read beside the contrast.

Only pictures that the nets concerned get right. Dependence falls for what multiplies by the input: the digit is
brighter than the texture, whatever the net makes of it; the gradient alone, of the same net, finds less there more
often. How GradCAM and input × gradient compare in independence depends on the net: GradCAM is ahead where the net
averages over the positions, and not where a dense layer has another weight at each."""

MAGNITUDE = "input magnitude"
UNCHANGED = 0.1
STEPS = 100


def measure(n: int = 200) -> Outcome:
    """Contrast, dependence and independence, of at most n pictures."""
    found = Outcome()
    train, test = pasted("train", 3000, seed=0), pasted("test", n, seed=1)
    by_digit = trained(dense(32), train.images, train.digit, 12, 2e-3)
    by_texture = trained(dense(32), train.images, train.texture, 5, 2e-3)
    right = predicted(by_digit, test.images) == test.digit
    right_texture = predicted(by_texture, test.images) == test.texture
    right_alone = predicted(by_texture, test.textures) == test.texture
    found.knows("net for digits: accuracy", share(right), 0.7)
    found.knows("net for textures: accuracy", share(right_texture), 0.9)

    def g(method: Method, net: nn.Module, images: Tensor, labels: Tensor, chosen: Tensor) -> Tensor:
        return _in_the_box(method, net, images[chosen], labels[chosen], test.box[chosen])

    for row, method in EVERYTHING.items():
        both = right & right_texture
        taught = g(method, by_digit, test.images, test.digit, both)
        found.add(row, "contrast", taught - g(method, by_texture, test.images, test.texture, both))
        both = right_texture & right_alone
        bare = g(method, by_texture, test.textures, test.texture, both)
        less = g(method, by_texture, test.images, test.texture, both) < bare
        found.add(row, "dependence", less)
    found.above("contrast", 0.0, *METHODS)
    found.within("contrast", 0.0, *CONTROLS)
    for row in (GRAD_CAM, GUIDED, SENSITIVITY):
        for other in (INPUT_X_GRADIENT, INTEGRATED):
            found.falls("dependence", row, other)
    for name, make, rate in (("dense", lambda: dense(32), 2e-3), ("pooled", pooled, 5e-3)):
        _independence(found, name, trained(make(), train.textures, train.texture, 5, rate), test)
    found.falls("independence, pooled net", GRAD_CAM, INPUT_X_GRADIENT)
    return found


def _independence(found: Outcome, name: str, net: nn.Module, test: Pasted) -> None:
    """By a net that saw textures only, with patches made for it."""
    neutral = _neutral(net, test.textures, test.images, test.box)
    with torch.no_grad():
        before, after = net(test.textures), net(neutral)
    right = before.argmax(1) == test.texture
    unmoved = right & ((after - before).norm(dim=1) < UNCHANGED * before.norm(dim=1))
    found.knows(f"{name} net that saw textures only: accuracy on them", share(right), 0.9)
    found.knows(f"{name} net: patches that move the logits by less than a tenth", share(unmoved), 0.8)
    target, box, column = test.texture[unmoved], test.box[unmoved], f"independence, {name} net"
    for row, method in EVERYTHING.items():
        bare, patched = (_in_the_box(method, net, x[unmoved], target, box) for x in (test.textures, neutral))
        found.add(row, column, (patched - bare).abs() < UNCHANGED * bare)
    scores = {row: found.scores[row][column] for row in (*METHODS, MAGNITUDE)}
    found.expect(f"{column}: every method > {MAGNITUDE}", {row: scores[row] - scores[MAGNITUDE] for row in METHODS})


def _in_the_box(method: Method, net: nn.Module, images: Tensor, target: Tensor, box: Tensor) -> Tensor:
    return RelevanceMass()(net, images, target, method(net, images, target), truth=box)


def _neutral(net: nn.Module, textures: Tensor, images: Tensor, box: Tensor) -> Tensor:
    """The textures with a patch in the box, near the digit that the images have there, that leaves the logits alone."""
    with torch.no_grad():
        wanted = net(textures)
    digit = images - textures
    patch = digit.clone().requires_grad_()
    optimiser = torch.optim.Adam([patch], lr=0.03)
    for _ in range(STEPS):
        optimiser.zero_grad()
        moved = (net((textures + patch * box).clamp(0, 1)) - wanted).square().sum()
        changed = ((patch - digit) * box).square().sum()
        (moved + changed).backward(inputs=[patch])
        optimiser.step()
    return (textures + patch.detach() * box).clamp(0, 1)
