"""Deterministic weights and images for every framework, and the files of expected results."""

import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

BATCH, SIZE, CLASSES = 4, 64, 10
CIFAR_SIZE = 32  # of the images for networks with CIFAR's stem
ODD_SIZE = 72  # halved to 9 and 5 pixels


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


def size(case: str) -> int:
    """Height and width of the images for the network of NAME.json."""
    if case.startswith('cifar'):
        return CIFAR_SIZE
    return ODD_SIZE if case == 'resnet17d' else SIZE


def kept(probability: float) -> np.ndarray:
    """Bool [N, 1, 1, 1]: the examples that stochastic depth keeps, in place of a random draw."""
    rng = np.random.default_rng(round(1e6 * probability))
    return rng.random((BATCH, 1, 1, 1)) < probability


def images(size: int = SIZE) -> np.ndarray:
    """float64 [N, H, W, 3]."""
    return np.random.default_rng(0).normal(size=(BATCH, size, size, 3))


def labels() -> np.ndarray:
    """int32 [N]."""
    return np.arange(BATCH, dtype=np.int32) * 3 % CLASSES


def pictures() -> list[np.ndarray]:
    """uint8 [H, W, 3] each: noise, pale noise, a gradient, one color, and a dot in the dark."""
    rng = np.random.default_rng(0)
    gradient = np.add.outer(np.add.outer(np.arange(48) * 2, np.arange(40) * 3), [0, 20, 40])
    dark = rng.integers(0, 4, (33, 40, 3), np.uint8)
    dark[20, 30] = 255
    return [
        rng.integers(0, 256, (40, 40, 3), np.uint8),
        rng.integers(100, 180, (40, 33, 3), np.uint8),
        gradient.astype(np.uint8),
        np.full((24, 24, 3), [10, 200, 90], np.uint8),
        dark,
    ]


def pixels_digest(images: Iterable[np.ndarray]) -> str:
    """The first 64 bits of the SHA-256 of arrays uint8."""
    return hashlib.sha256(b''.join(np.ascontiguousarray(i).tobytes() for i in images)).hexdigest()[
        :16
    ]


def digest(values: np.ndarray) -> list[float]:
    """Summarizes an array for comparison: mean, norm, first and last value."""
    flat = np.asarray(values, np.float64).ravel()
    return [float(v) for v in (flat.mean(), np.linalg.norm(flat), flat[0], flat[-1])]


def sha256(shapes: Mapping[str, Sequence[int]]) -> str:
    """SHA-256 of names and shapes, independent of their order."""
    lines = [f'{name} {list(shape)}\n' for name, shape in sorted(shapes.items())]
    return hashlib.sha256(''.join(lines).encode()).hexdigest()


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Writes JSON with one line per array."""
    path.write_text(''.join(_lines(content, '')) + '\n')


def _lines(value: Any, indent: str) -> Iterator[str]:
    if not isinstance(value, Mapping):
        yield json.dumps(value)
        return
    inner = indent + ' '
    for number, (name, item) in enumerate(value.items()):
        yield f'{"," if number else "{"}\n{inner}{json.dumps(name)}: '
        yield from _lines(item, inner)
    yield f'\n{indent}}}'
