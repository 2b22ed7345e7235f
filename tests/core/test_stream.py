"""The stream: every row once, in order, at the chunk size that the work itself shows to be best."""

import gc
import logging
import platform
import subprocess
import sys
import types

import pytest
import torch

from whybox.core import stream as streams
from whybox.core.stream import ChunkSize, stream

X = (torch.zeros(1, 4),)


class Clock:
    """Time that passes only when told to."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(streams, "time", types.SimpleNamespace(thread_time=lambda: self.now))


def run(size, rows, work):
    done = []

    def noted(part):
        done.append((part.start, part.stop))
        return work(part)

    results = list(stream(size, rows, noted))
    return done, results


def covered(done, rows):
    return [i for start, stop in done for i in range(start, stop)] == list(range(rows))


@pytest.mark.parametrize("fixed", [1, 2, 3, 7, 64])
@pytest.mark.parametrize("rows", [1, 2, 7, 20])
def test_a_fixed_size_covers_every_row_once(fixed, rows):
    size = ChunkSize(X, fixed=fixed)
    done, results = run(size, rows, lambda part: torch.arange(rows)[part])
    assert covered(done, rows)
    assert {stop - start for start, stop in done[:-1]} <= {fixed}
    assert torch.cat([result for _, result in results]).tolist() == list(range(rows))
    assert [(part.start, part.stop) for part, _ in results] == done


@pytest.mark.parametrize(
    ("seconds", "best"),
    [
        (lambda rows: 1.0, streams.LARGEST_ON_CPU),  # a chunk costs the same whatever its size: the larger the better
        (lambda rows: 1.0 * rows, 1),  # a row costs the same whatever the chunk
        (lambda rows: rows * (1 + abs(rows - 8)), 8),  # a valley at 8
        (lambda rows: rows * (1 - 0.001 * rows), 1),  # a gain within the noise is none
        (lambda rows: 2.0 if rows == 2 else 1.0, streams.LARGEST_ON_CPU),  # one bad measurement among good ones
    ],
    ids=["free", "linear", "valley", "noise", "bump"],
)
def test_the_size_is_learnt_and_settles(monkeypatch, seconds, best):
    clock = Clock(monkeypatch)
    monkeypatch.setattr(streams, "free_memory", lambda: 10**12)
    size = ChunkSize(X)

    def work(part):
        clock.now += seconds(part.stop - part.start)

    done, _ = run(size, 500, work)
    assert covered(done, 500)  # nothing is run twice
    assert size.settled
    assert size.size == best
    sizes = [stop - start for start, stop in done]
    assert sizes[0] == 1
    assert all(later <= 2 * max(sizes[:i]) for i, later in enumerate(sizes) if i)
    assert set(sizes[7 * streams.TRIES : -1]) == {best}
    before = clock.now
    run(size, 2 * best, work)
    assert size.size == best
    assert clock.now > before


def test_the_first_chunks_of_a_size_warm_up(monkeypatch):
    """Slow first calls, as of a just-in-time compiler, must not stop the growth."""
    clock = Clock(monkeypatch)
    monkeypatch.setattr(streams, "free_memory", lambda: 10**12)
    size, met = ChunkSize(X), set()

    def work(part):
        rows = part.stop - part.start
        clock.now += 1.0 if rows in met else 1000.0
        met.add(rows)

    run(size, 500, work)
    assert size.size == streams.LARGEST_ON_CPU


def test_a_rest_that_fills_no_chunk_teaches_nothing(monkeypatch):
    clock = Clock(monkeypatch)
    size = ChunkSize(X)
    size.size = 8

    def work(part):
        clock.now += 100.0

    for _ in range(5):
        run(size, 3, work)
    assert (size.size, size.settled) == (8, False)


def test_a_size_that_the_work_is_too_small_to_try_is_not_used(monkeypatch):
    """Eight rows at once are best, sixteen worse; thirty-two would be tried next, but there are never as many."""
    clock = Clock(monkeypatch)
    size = ChunkSize(X)

    def work(part):
        rows = part.stop - part.start
        clock.now += rows * (1 + abs(rows - 8))

    for _ in range(40):
        done, _ = run(size, 16, work)
        assert covered(done, 16)
    assert done == [(0, 8), (8, 16)]


def test_memory_limits_the_size(monkeypatch):
    clock = Clock(monkeypatch)
    weight = torch.randn(1000, 1000)  # 4 MB: kept for backward whatever the chunk, and for each row 4 kB more

    def work(part):
        clock.now += 1.0
        x = torch.zeros(part.stop - part.start, 1000, requires_grad=True)
        ((x @ weight).tanh() * 2).sum().backward()

    for free, most in ((10**12, streams.LARGEST_ON_CPU), (4 * 4_004_000 * 5, 4), (1000, 1)):
        monkeypatch.setattr(streams, "free_memory", lambda free=free: free)
        size = ChunkSize((torch.zeros(1, 1000),))
        run(size, 300, work)
        assert size.size == most
    monkeypatch.setattr(streams, "free_memory", lambda: None)
    size = ChunkSize((torch.zeros(1, 1000),))
    run(size, 300, work)
    assert size.size == streams.LARGEST_ON_CPU


def test_without_a_backward_pass_the_input_counts(monkeypatch):
    monkeypatch.setattr(streams, "free_memory", lambda: 4 * 16 * 4000 * 3)
    Clock(monkeypatch)
    size = ChunkSize((torch.zeros(1, 1000),))
    run(size, 10, lambda part: None)
    assert size._limit == 3


@pytest.mark.parametrize("fixed", [None, 16])
def test_out_of_memory_halves_the_size_and_nothing_is_lost(monkeypatch, caplog, fixed):
    clock = Clock(monkeypatch)
    monkeypatch.setattr(streams, "free_memory", lambda: 10**12)
    size = ChunkSize(X, fixed=fixed)
    failed = []

    def work(part):
        rows = part.stop - part.start
        clock.now += 1.0
        if rows > 5:
            failed.append(rows)
            raise torch.OutOfMemoryError("out of memory")
        return torch.arange(part.start, part.stop)

    with caplog.at_level(logging.WARNING):
        results = [result for _, result in stream(size, 100, work)]
    assert torch.cat(results).tolist() == list(range(100))
    assert size.size == 4
    assert failed == ([8] if fixed is None else [16, 8])
    assert f"going on with {failed[0] // 2}" in caplog.text
    assert not any(type(thing) is torch.OutOfMemoryError for thing in gc.get_objects())


def test_a_single_row_that_does_not_fit_is_an_error():
    def work(part):
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        list(stream(ChunkSize(X, fixed=4), 9, work))


def test_any_other_error_passes_through():
    size = ChunkSize(X)

    def work(part):
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        list(stream(size, 9, work))
    assert size.size == 1


def test_free_memory_is_a_number_of_bytes_or_unknown(monkeypatch, tmp_path):
    known = streams.free_memory()
    assert known is None or known > 2**20
    monkeypatch.setattr(streams, "Path", lambda _: tmp_path / "absent")
    assert streams.free_memory() is None
    (tmp_path / "meminfo").write_text("MemTotal: 16 kB\nMemAvailable:   8 kB\n")
    monkeypatch.setattr(streams, "Path", lambda _: tmp_path / "meminfo")
    assert streams.free_memory() == 8192


MAPPED = """
import ctypes, sys, torch
from whybox.core.stream import ChunkSize
if sys.argv[1] == "streamed":
    ChunkSize((torch.zeros(1, 4),))
block = torch.empty(6 * 2**20)
libc = ctypes.CDLL(None)
fields = [(name, ctypes.c_size_t) for name in "abcdefghij"]
libc.mallinfo2.restype = type("mallinfo2", (ctypes.Structure,), {"_fields_": fields})
print(libc.mallinfo2().e)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc's malloc gives single blocks back at once")
def test_memory_that_one_chunk_frees_is_kept_for_the_next():
    """A block in a mapping of its own, `hblkhd` of mallinfo(3), goes back to the system when it is freed."""

    def mapped(how):
        return int(subprocess.run([sys.executable, "-c", MAPPED, how], check=True, capture_output=True).stdout)

    assert mapped("at first") >= 24 * 2**20
    assert mapped("streamed") < 24 * 2**20
