"""What all tests share: annotations checked by beartype, real data where it is at hand."""

import contextlib
import os
import tarfile
from pathlib import Path
from types import ModuleType

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("whybox", "beartype.beartype")

from whybox.models.torchvision_models import import_torchvision  # noqa: E402 (the hook comes first)


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


@pytest.fixture(scope="session")
def cifar10(data_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root that holds cifar10/test, unpacked if need be."""
    if (data_dir / "cifar10/test").is_dir():
        return data_dir
    archive = data_dir / "cifar10/test.tar.gz"
    if not archive.is_file():
        pytest.skip(f"real data: {archive} is absent")
    root = tmp_path_factory.mktemp("data")
    with tarfile.open(archive) as tar:
        tar.extractall(root / "cifar10", filter="data")
    return root


@pytest.fixture
def torchvision() -> ModuleType:
    """torchvision, whichever torch it was built for."""
    try:
        return import_torchvision()
    except ImportError:
        pytest.skip("torchvision: pip install 'whybox[vision]'")


@pytest.fixture
def timm(torchvision: ModuleType) -> ModuleType:
    """timm."""
    return pytest.importorskip("timm", reason="timm: pip install 'whybox[vision]'")


@pytest.fixture
def transformers(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """transformers, offline."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with contextlib.suppress(ImportError):
        import_torchvision()
    return pytest.importorskip("transformers", reason="transformers: pip install 'whybox[hf]'")
