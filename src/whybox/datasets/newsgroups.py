"""20 Newsgroups, by date, from scikit-learn's cache."""

from pathlib import Path

import torch
from torch import Tensor

from whybox.core.errors import InputError


def read(root: Path, split: str) -> tuple[list[str], Tensor]:
    """The posts, headers and quotes included, and the number of their group in alphabetical order.

    scikit-learn's cache is a pickle: reading it trusts whoever made the file.
    """
    from sklearn.datasets import fetch_20newsgroups

    home = root / "sklearn"
    cache = home / "20news-bydate_py3.pkz"
    if not cache.is_file():
        raise InputError(
            f"found no {cache}, the cache that scikit-learn's fetch_20newsgroups(data_home={str(home)!r}) makes"
        )
    data = fetch_20newsgroups(data_home=home, subset=split, shuffle=False, download_if_missing=False)
    return data.data, torch.from_numpy(data.target).long()
