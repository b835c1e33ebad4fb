"""Weights and images drawn by a seeded rule, the same for every framework."""

import zlib

import numpy as np

BATCH, SIZE, CLASSES = 4, 64, 10


def weight(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """float64 values for torchvision's parameter or buffer `name`, in torch's layout."""
    normal = np.random.default_rng(zlib.crc32(name.encode())).normal(size=shape)
    if name.endswith('running_var'):
        return 1 + 0.2 * np.abs(normal)
    if name.endswith('running_mean') or name.endswith('bias'):
        return 0.1 * normal
    if len(shape) == 1:  # BatchNorm's scale
        return 1 + 0.2 * normal
    return normal * np.sqrt(2 / np.prod(shape[1:]))


def images() -> np.ndarray:
    """float64 [N, H, W, 3]."""
    return np.random.default_rng(0).normal(size=(BATCH, SIZE, SIZE, 3))


def labels() -> np.ndarray:
    """int32 [N]."""
    return np.arange(BATCH, dtype=np.int32) * 3 % CLASSES


def digest(values: np.ndarray) -> list[float]:
    """A few numbers that a wrong array is unlikely to share: mean, norm, first and last."""
    flat = np.asarray(values, np.float64).ravel()
    return [float(v) for v in (flat.mean(), np.linalg.norm(flat), flat[0], flat[-1])]
