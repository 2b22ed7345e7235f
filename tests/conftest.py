"""What all tests share: annotations checked by beartype, real data where it is at hand."""

import os
from pathlib import Path

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("whybox", "beartype.beartype")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data named by WHYBOX_DATA; the test is skipped where there is none."""
    folder = os.environ.get("WHYBOX_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("real data: set WHYBOX_DATA to the folder that holds it")
    return Path(folder)


@pytest.fixture
def rng() -> torch.Generator:
    """A seeded random generator."""
    return torch.Generator().manual_seed(0)
