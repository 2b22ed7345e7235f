"""Real architectures, whole, under the engine."""

from types import ModuleType

import pytest
from architectures import ARCHITECTURES, Architecture, examine


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda architecture: architecture.name)
def test_architecture(architecture: Architecture, timm: ModuleType, transformers: ModuleType) -> None:
    row = examine(architecture)
    assert row["forward"] == 0 if architecture.whole else row["forward"] < 1e-5
    assert row["same"]
    assert row["finite"]
    assert row["reached"]
    assert row.get("error", 0.0) < 1e-5
    assert row["gap"] < 1e-5
