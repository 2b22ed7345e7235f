"""Every composite on the embedded digits model, against relevance kept from a run that the dense reference vouches for.

`PYTHONPATH=src:tests/attribution/backprop python tests/attribution/backprop/test_golden.py` writes the file anew, and
only if the engine equals the literal reference on these very digits.
"""

from pathlib import Path

import pytest
import torch
from dense_reference import COMPOSITES, Dense, Value
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from whybox import models
from whybox.attribution.backprop.composites import NAMES
from whybox.attribution.backprop.lrp import LRP
from whybox.core.model import Model
from whybox.datasets import load

FILE = Path(__file__).with_name("golden_digits.safetensors")
COUNT, EPSILON = 4, 1e-6


def digits() -> tuple[Model, Tensor]:
    model = models.load("digits")
    model.module.double()
    inputs, _ = load("digits", split="test")
    assert isinstance(inputs, Tensor)
    return model, inputs[:COUNT].double()


def relevance(model: Model, inputs: Tensor, composite: str) -> Tensor:
    return LRP(composite=composite, epsilon=EPSILON)(model, inputs)


def literally(net: nn.Module, x: Tensor, low: float, high: float, composite: str) -> Tensor:
    """The digits model step by step over explicit matrices, for one digit and the class predicted."""
    dense = Dense(composite, EPSILON, low, high)
    value = image = dense.input(x)
    for name in ("conv1", "conv2", "pool", "conv3", "conv4"):
        part = getattr(net, name)
        value = dense.winners(2, value) if name == "pool" else dense.relu(dense.linear(part, value))
    value = dense.average(lambda v: v.mean((2, 3)), value)
    output: Value = dense.linear(net.linear, value)
    dense.relevance(output, int(output.data.argmax()))
    return torch.from_numpy(image.relevance).view(x.shape)


def test_there_is_a_golden_answer_for_every_composite() -> None:
    assert set(load_file(FILE)) == {"inputs", *NAMES}


@pytest.mark.parametrize("composite", NAMES)
def test_relevance_of_digits_is_golden(composite: str) -> None:
    model, inputs = digits()
    golden = load_file(FILE)
    assert torch.equal(inputs.float(), golden["inputs"])
    found = relevance(model, inputs, composite)
    assert float((found - golden[composite]).abs().max()) <= 1e-5 * float(golden[composite].abs().max())
    assert float(golden[composite].abs().max()) > 0.01


if __name__ == "__main__":
    model, inputs = digits()
    domain = model.domain_of(inputs)
    (low,), (high,) = domain.low, domain.high
    kept = {"inputs": inputs.float()}
    for composite in COMPOSITES:
        found = relevance(model, inputs, composite)
        wanted = torch.cat([literally(model.module, x[None], low, high, composite) for x in inputs])
        torch.testing.assert_close(found, wanted, rtol=1e-8, atol=1e-8 * float(wanted.abs().max()))
        kept[composite] = found.float()
    save_file(kept, str(FILE))
