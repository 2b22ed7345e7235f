"""Files of named tensors with a record: written whole or not at all, and recognised when damaged."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from whybox.core.errors import CheckpointError, InputError
from whybox.core.method import digest_of

FORMAT = 1


def write(path: Path, what: str, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
    """Write tensors and a record of plain values in place of `path`, which is at no time half written.

    The record is kept with a digest of the tensors, so that `read` notices any byte that has changed.
    """
    kept = {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()}
    header = {"format": FORMAT, "what": what, "digest": digest_of(kept), **record}
    part = path.with_name(f"{path.name}.part")
    save_file(kept, part, {"whybox": json.dumps(header)})
    with part.open("rb") as file:
        os.fsync(file.fileno())
    os.replace(part, path)


def read(path: Path, what: str, hint: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors and the record that `write` has kept; no code in the file is run.

    Raises:
        CheckpointError: the file is absent, damaged, or holds something else. The message ends with the hint.
    """
    if not path.is_file():
        raise CheckpointError(f"there is no file {str(path)!r}; {hint}")
    try:
        with safe_open(str(path), "pt") as file:
            record = json.loads((file.metadata() or {})["whybox"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        kind, version, digest = (record.pop(key) for key in ("what", "format", "digest"))
    except (SafetensorError, OSError, LookupError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged, or no {what} of whybox: {error}; {hint}") from error
    if kind != what or version != FORMAT:
        raise CheckpointError(f"{path} holds a {kind} of format {version}, not a {what} of format {FORMAT}; {hint}")
    if digest_of(tensors) != digest:
        raise CheckpointError(f"{path} is damaged: its values are not those that were written; {hint}")
    return tensors, record


def check_writable(path: Path) -> None:
    """Raise InputError, before any work, unless a file can be written at `path`."""
    try:
        part = path.with_name(f"{path.name}.part")
        part.touch()
        part.unlink()
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot write {str(path)!r}: {error}; give out=FILE in a folder that can be written"
        ) from error
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder; give out=FILE")


def plain(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as it is after writing and reading: lists for tuples."""
    read_again: dict[str, Any] = json.loads(json.dumps(record))
    return read_again
