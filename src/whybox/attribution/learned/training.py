"""What training an explainer takes: the inputs out of a loader, a seeded order of minibatches, and a progress bar.

The loss and the optimiser are the method's own:

    inputs, labels = read(loader)
    for step, rows in minibatches(len(inputs), batch=64, steps=1000, seed=seed, progress=progress):
        loss = …inputs[rows]…, with noise as a function of (seed, row, step), as `core.block.noise_keys` gives it
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset
from tqdm.auto import tqdm

from whybox.core.errors import InputError

# Under which names a loader's dicts may hold the inputs and the classes.
INPUTS = ("inputs", "x", "image", "images", "pixel_values", "input_ids", "inputs_embeds", "features")
LABELS = ("labels", "label", "targets", "target", "y")


def read(loader: Any) -> tuple[Tensor, Tensor | None]:
    """All inputs (n, …) of a loader, in its order, and their classes (n,) where it gives any; on the CPU.

    Args:
        loader: the inputs as one tensor, or a pair of inputs and classes, or anything that yields batches: of inputs,
            of such pairs, or of dicts with one of the names in INPUTS, and perhaps one of those in LABELS.

    Raises:
        InputError: it is empty, holds something else, or inputs of several shapes.
    """
    found = list(batches(loader))
    if not any(len(inputs) for inputs, _ in found):
        raise InputError("the loader is empty: it gives no inputs to learn from")
    shapes = {(tuple(inputs.shape[1:]), inputs.dtype) for inputs, _ in found}
    if len(shapes) > 1:
        kinds = ", ".join(f"{shape} {dtype}" for shape, dtype in sorted(shapes, key=str))
        raise InputError(f"the loader gives inputs of several shapes or types, {kinds}; bring them to one")
    labels = [classes for _, classes in found if classes is not None]
    if labels and (len(labels) < len(found) or len({classes.shape[1:] for classes in labels}) > 1):
        raise InputError("the loader gives classes with some batches only, or of several shapes; give (n,) with each")
    return torch.cat([inputs for inputs, _ in found]), torch.cat(labels) if labels else None


def batches(loader: Any) -> Iterator[tuple[Tensor, Tensor | None]]:
    """The batches of a loader one after the other, on the CPU: inputs (n, …) and their classes (n,), if it gives any.

    Args:
        loader: as in `read`.

    Raises:
        InputError: it holds something else.
    """
    if isinstance(loader, Dataset):
        raise InputError("a Dataset gives single samples; put it into a torch.utils.data.DataLoader")
    whole = isinstance(loader, Tensor) or _is_pair(loader)
    if not whole and (not isinstance(loader, Iterable) or isinstance(loader, (str, bytes, Mapping))):
        raise InputError(
            f"fit reads a tensor of inputs, a pair (inputs, classes) or a loader of batches, not a "
            f"{type(loader).__name__}"
        )
    return map(_batch, [loader] if whole else loader)


def moments(inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation by channel or column, float32 (1, c, 1, …); 1 for the deviation of what is constant.

    So that a constant channel which is another one in later inputs does not count for millions.
    """
    spread, mean = torch.std_mean(inputs.float(), (0, *range(2, inputs.ndim)), correction=0, keepdim=True)
    return mean, torch.where(spread > 0, spread, 1.0)


def minibatches(rows: int, *, batch: int, steps: int, seed: int, progress: bool) -> Iterator[tuple[int, Tensor]]:
    """The number of each step and the rows that it learns from (batch,); all rows once, then all in another order."""
    generator = torch.Generator().manual_seed(seed % 2**63)
    order = torch.empty(0, dtype=torch.long)
    for step in tqdm(range(steps), delay=2, leave=False, disable=not progress, unit="step"):
        while len(order) < min(batch, rows):
            order = torch.cat((order, torch.randperm(rows, generator=generator)))
        yield step, order[:batch]
        order = order[batch:]


def _is_pair(value: Any) -> bool:
    """Whether this is (inputs, classes), which have fewer axes; two batches have as many."""
    if not isinstance(value, (tuple, list)) or len(value) != 2 or not all(isinstance(part, Tensor) for part in value):
        return False
    inputs, labels = value
    fewer: bool = labels.ndim < inputs.ndim
    return fewer


def _batch(batch: Any) -> tuple[Tensor, Tensor | None]:
    """The inputs and classes of one batch."""
    if isinstance(batch, Mapping):
        inputs = next((batch[name] for name in INPUTS if name in batch), None)
        labels = next((batch[name] for name in LABELS if name in batch), None)
        if inputs is None:
            raise InputError(f"the loader's dicts hold {', '.join(map(str, batch))}; name the inputs {INPUTS[0]!r}")
    elif isinstance(batch, (tuple, list)):
        if not batch:
            raise InputError("the loader gives an empty batch")
        inputs, labels = batch[0], batch[1] if len(batch) > 1 else None
    else:
        inputs, labels = batch, None
    if not isinstance(inputs, Tensor) or inputs.ndim < 2:
        what = f"a tensor of shape {tuple(inputs.shape)}" if isinstance(inputs, Tensor) else type(inputs).__name__
        raise InputError(f"a batch of inputs is a tensor with the batch first, as in (n, features), not {what}")
    own = torch.atleast_1d(labels.detach().cpu()) if isinstance(labels, Tensor) else None
    if own is not None and len(own) != len(inputs):
        raise InputError(
            f"the loader gives {len(inputs)} inputs with {len(own)} classes; models with several inputs are not "
            "explained here"
        )
    return inputs.detach().cpu(), own
