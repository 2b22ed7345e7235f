"""Files that appear whole or not at all."""

import secrets
from pathlib import Path


def write_whole(path: str | Path, content: bytes) -> None:
    """Write a file beside its place, then move it there: whatever happens, what was there before is never half gone."""
    place = Path(path).resolve()
    beside = place.with_name(f".{secrets.token_hex(8)}.tmp")
    try:
        beside.write_bytes(content)
        beside.replace(place)
    finally:
        beside.unlink(missing_ok=True)
