"""scikit-learn's handwritten digits: 1,797 pictures of 8 × 8 pixels, white ink on black."""

import numpy as np

SEED = 0


def read(split: str) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (n, 8, 8, 1), float32 in [0, 1], and labels.

    The test split is a random fifth of every class, the same everywhere: NumPy keeps the stream of RandomState.
    """
    from sklearn.datasets import load_digits

    data = load_digits()
    random = np.random.RandomState(SEED)
    test = np.zeros(len(data.target), dtype=bool)
    for digit in range(10):
        samples = np.flatnonzero(data.target == digit)
        test[random.permutation(samples)[: len(samples) // 5]] = True
    chosen = test if split == "test" else ~test
    return (data.images[chosen, :, :, None] / 16).astype(np.float32), data.target[chosen]
