"""Model: a torch module together with what explaining it needs to know about its inputs and outputs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from whybox.core.errors import InputError, ModelError
from whybox.core.stream import ChunkSize


@dataclass(frozen=True)
class Domain:
    """The lowest and the highest valid value of each channel, in the units that the model sees.

    `low` and `high` have one entry per channel (axis 1), or a single one for all. `source` says where they are
    from: "preprocessing", "given", or "measured on the batch".
    """

    low: tuple[float, ...]
    high: tuple[float, ...]
    source: str = "given"

    def __post_init__(self) -> None:
        if len(self.low) != len(self.high) or not self.low:
            raise InputError("a domain needs as many lowest as highest values: one, or one per channel")
        if any(not low <= high for low, high in zip(self.low, self.high, strict=True)):
            raise InputError(f"the domain's lowest values {self.low} lie above its highest {self.high}")

    @classmethod
    def measured(cls, inputs: Tensor) -> "Domain":
        """The range of the values in this batch, per channel where there is a channel axis."""
        axes = [axis for axis in range(inputs.ndim) if axis != 1] if inputs.ndim > 2 else list(range(inputs.ndim))
        low, high = inputs.amin(axes).double(), inputs.amax(axes).double()
        return cls(tuple(low.flatten().tolist()), tuple(high.flatten().tolist()), "measured on the batch")

    def bounds(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """`low` and `high` as tensors that broadcast against `like`, whose axis 1 is the channel."""
        if len(self.low) not in (1, like.shape[1] if like.ndim > 1 else 1):
            raise InputError(f"the domain has {len(self.low)} channels, but the input's shape is {tuple(like.shape)}")
        shape = (1, -1, *(1,) * (like.ndim - 2)) if like.ndim > 1 else (-1,)
        return like.new_tensor(self.low).view(shape), like.new_tensor(self.high).view(shape)


class Model:
    """A torch module with its domain, preprocessing, labels and measured chunk sizes.

    Every method accepts a bare `nn.Module` as well and wraps it for the call; wrap it yourself to state the
    domain and the labels, and to keep the chunk sizes from call to call.

    Args:
        module: any `nn.Module`; it is never changed.
        name: what to call it in reports.
        domain: lowest and highest valid value per channel; measured on the batch where it is not given.
        preprocess: turns a PIL image into one input (c, h, w), and an input back into a picture (`display`).
        labels: the names of the classes, in the order of the outputs.
        input_size: the shape of one input, without the batch axis.
        tokenizer: turns a text into token numbers, as one of transformers does.
        chunk: how many samples go through the module at once; measured where it is not given.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        name: str = "",
        domain: Domain | None = None,
        preprocess: Callable[[Any], Tensor] | None = None,
        labels: Sequence[str] | None = None,
        input_size: tuple[int, ...] | None = None,
        tokenizer: Any = None,
        chunk: int | None = None,
    ) -> None:
        if not isinstance(module, nn.Module):
            raise ModelError(f"a model is a torch.nn.Module, not {type(module).__name__}; put the function into one")
        if chunk is not None and chunk < 1:
            raise InputError(f"chunk is the number of samples run at once, at least 1, not {chunk}")
        self.module = module
        self.name = name or type(module).__name__
        self.domain = domain
        self.preprocess = preprocess
        self.labels = None if labels is None else tuple(labels)
        self.input_size = input_size
        self.tokenizer = tokenizer
        self.chunk = chunk
        self._chunk_sizes: dict[Any, ChunkSize] = {}

    @classmethod
    def wrap(cls, model: "Model | nn.Module") -> "Model":
        """`model` itself if it is a Model, else a Model around the module."""
        return model if isinstance(model, Model) else cls(model)

    def __repr__(self) -> str:
        return f"Model({self.name})"

    def __call__(self, *inputs: Tensor, **kwargs: Any) -> Tensor:
        """One plain forward pass; output objects with `.logits` are unwrapped."""
        return unwrap(self.module(*inputs, **kwargs))

    def reference_tensor(self) -> Tensor | None:
        """The first parameter or buffer with floating-point values: it tells the device and the dtype."""
        tensors = (*self.module.parameters(), *self.module.buffers())
        return next((tensor for tensor in tensors if tensor.is_floating_point()), None)

    def noise(self) -> Tensor | None:
        """One input of random values within the model's domain, always the same; None where its size is not known."""
        if self.input_size is None:
            return None
        noise = torch.rand(1, *self.input_size, generator=torch.Generator().manual_seed(0))
        if self.domain is not None:
            low, high = self.domain.bounds(noise)
            noise = low + (high - low) * noise
        reference = self.reference_tensor()
        return noise if reference is None else noise.to(reference)

    def layers(self) -> list[str]:
        """The dotted names of all layers, in the order in which they are declared."""
        return [name for name, _ in self.module.named_modules() if name]

    def chunk_size(self, inputs: tuple[Tensor, ...], *, gradient: bool) -> ChunkSize:
        """How many samples of this shape to run at once, with or without a backward pass."""
        key = (gradient, *((x.shape[1:], x.dtype, x.device) for x in inputs))
        if key not in self._chunk_sizes or self._chunk_sizes[key].fixed != self.chunk:
            self._chunk_sizes[key] = ChunkSize(inputs, fixed=self.chunk)
        return self._chunk_sizes[key]

    def domain_of(self, x: Tensor) -> Domain:
        """The domain of this input: the model's own where the channels agree, else measured on the batch."""
        channels = x.shape[1] if x.ndim > 1 else 1
        if self.domain is not None and len(self.domain.low) in (1, channels):
            return self.domain
        return Domain.measured(x)


def unwrap(output: Any) -> Tensor:
    """The tensor of scores in what a module returned: the tensor itself, or `.logits` of an output object."""
    if isinstance(output, Mapping) and "logits" in output:
        output = output["logits"]
    elif not isinstance(output, Tensor) and hasattr(output, "logits"):
        output = output.logits
    elif isinstance(output, tuple) and len(output) == 1:
        output = output[0]
    if not isinstance(output, Tensor):
        raise ModelError(
            f"the model returns a {type(output).__name__}; it must return a tensor or an object with `.logits`. "
            "Put it into a module whose forward picks the tensor to explain"
        )
    if output.dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        return output
    raise ModelError(f"the model returns {output.dtype}; only floating-point scores can be explained")


def by_row(output: Tensor, rows: int) -> Tensor:
    """The output with one row per sample, also where the model squeezes the batch axis of a single sample away."""
    if rows == 1 and (output.ndim == 0 or len(output) != 1):
        output = output[None]
    if output.ndim == 0 or len(output) != rows:
        raise ModelError(
            f"the model returns shape {tuple(output.shape)} for {rows} samples, but each needs a row of its own; "
            "put it into a module whose forward keeps the batch axis first"
        )
    return output
