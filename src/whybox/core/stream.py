"""The stream: many rows through the model in chunks whose size is found from the work itself."""

import functools
import gc
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

logger = logging.getLogger(__name__)

# A larger chunk must be faster than the last by this factor, else timing noise would drive it up for nothing.
WORTH_IT = 0.97
# So many chunks of a size are timed, and the fastest counts: the first ones warm up, the allocator among others.
TRIES = 3
LARGEST_ON_CPU = 64
LARGEST_ON_GPU = 1024
# The share of the free memory that one chunk may take.
MEMORY_SHARE = 0.25
# Just below the largest block by which glibc's malloc adapts its thresholds, 32 MiB.
LARGEST_LEARNT = 2**25 - 2**16


class ChunkSize:
    """Finds out how many rows to run at once, from the time that chunks of real work take: nothing is run twice.

    It begins with one row, whose memory it measures, then doubles until two sizes in a row gain nothing. On a GPU an
    out-of-memory error halves the size for good; on a CPU the kernel would kill the process, so there the measured
    memory of one row limits the size from the start.

    Args:
        inputs: the inputs (batch first) of the work to come; only shapes, dtypes and device are used.
        fixed: always use this size and measure nothing.
    """

    def __init__(self, inputs: tuple[Tensor, ...], *, fixed: int | None = None) -> None:
        self.fixed = fixed
        self.size = fixed or 1
        self.settled = fixed is not None
        self._limit = LARGEST_ON_GPU if inputs[0].is_cuda else LARGEST_ON_CPU
        self._best: tuple[float, int] = (float("inf"), 1)
        self._times: list[float] = []
        self._is_cpu = inputs[0].device.type == "cpu"
        if self._is_cpu:
            keep_freed_memory()
        self._row_bytes = sum(x[:1].numel() * x.element_size() for x in inputs)
        self._measured_memory = False

    def run(self, work: Callable[[slice], Any], start: int, stop: int) -> tuple[Any, int]:
        """Run `work` on the next rows from `start`, and say how many rows that were."""
        while True:
            # A size that the rest is too small for cannot be tried on it, and may be a bad one: the best so far, then.
            tried = self.settled or stop - start >= self.size
            rows = min(self.size if tried else self._best[1], stop - start)
            began = self._now()
            try:
                if self.settled or not self._is_cpu or self._measured_memory:
                    result = work(slice(start, start + rows))
                else:
                    result = self._measure_memory(work, slice(start, start + rows))
            except torch.OutOfMemoryError:
                if rows == 1:
                    raise
                self.size, self.settled = rows // 2, True
                gc.collect()
                torch.cuda.empty_cache()
                logger.warning("out of memory with %d samples at once; going on with %d", rows, self.size)
                continue
            if not self.settled:
                if torch.cuda.is_initialized():
                    torch.cuda.synchronize()
                self._learn(rows, self._now() - began)
            return result, rows

    def _now(self) -> float:
        """Seconds; on a CPU those that this thread has worked, which other work on the machine hardly disturbs."""
        return time.thread_time() if self._is_cpu else time.perf_counter()

    def _learn(self, rows: int, seconds: float) -> None:
        """A few chunks of a size decide whether to double it, keep it or go back."""
        if rows < self.size:
            return
        times = [*self._times, seconds / rows]  # a list of its own: several threads may learn at once
        self._times = times if len(times) < TRIES else []
        if len(times) < TRIES:
            return
        fastest = min(times)
        if fastest < self._best[0] * WORTH_IT:
            self._best = (fastest, self.size)
        # One size that gains nothing may be chance, so that the next is tried too.
        if self.size * 2 <= min(self._limit, 4 * self._best[1]):
            self.size *= 2
        else:
            self.size, self.settled = self._best[1], True

    def _measure_memory(self, work: Callable[[slice], Any], rows: slice) -> Any:
        """Run the first row while adding up what autograd keeps for it, and set the limit by that."""
        kept: dict[int, int] = {}

        def count(tensor: Tensor) -> tuple[Tensor, int]:
            kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor, tensor._version

        def check(saved: tuple[Tensor, int]) -> Tensor:
            """What autograd itself checks only of tensors that it saves without hooks."""
            tensor, version = saved
            if tensor._version != version:
                raise RuntimeError(
                    "one of the variables needed for gradient computation has been modified by an inplace operation "
                    f"of the model: shape {tuple(tensor.shape)}, at version {tensor._version}, not {version}"
                )
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, check):
            result = work(rows)
        self._measured_memory = True
        per_row = max(sum(kept.values()), 16 * self._row_bytes)
        free = free_memory()
        if free is not None:
            self._limit = max(1, min(self._limit, int(free * MEMORY_SHARE / per_row)))
        return result


def stream(size: ChunkSize, rows: int, work: Callable[[slice], Any]) -> Iterator[tuple[slice, Any]]:
    """Yield `(rows, work(rows))` for slices that cover `range(rows)`, each of the size that is best so far."""
    start = 0
    while start < rows:
        result, done = size.run(work, start, rows)
        yield slice(start, start + done), result
        start += done


@functools.cache
def keep_freed_memory() -> None:
    """Have glibc's malloc keep what one chunk frees for the next, instead of giving it back to the system each time.

    To get the pages back may cost as much as to compute with them. malloc adapts to what a program frees: once a block
    of nearly 32 MiB has been freed, it trims the heap beyond 64 MiB only (mallopt(3), M_MMAP_THRESHOLD). The block is
    never written to, so it takes no memory; other allocators do not care.
    """
    bytes(LARGEST_LEARNT)


def free_memory() -> int | None:
    """Bytes of memory that this machine can still give out, or None where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")), None)
