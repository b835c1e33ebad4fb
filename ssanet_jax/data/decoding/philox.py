"""Random numbers that are pure functions of their seed, by Philox (Salmon et al. 2011).

The generator, the use of the seed and the numbers are those of TensorFlow's StatelessRandomUniform.
NumPy's Philox has words of 64 bits, and other numbers.
"""

import numpy as np

_ROUNDS = 10
_FACTORS = np.array([[0xD2511F53], [0xCD9E8D57]], np.uint64)
_KEY_STEPS = np.array([[0x9E3779B9], [0xBB67AE85]], np.uint32)
_SEED_KEY = np.array([[0x3EC8F720], [0x02461E29]], np.uint32)  # TensorFlow's, which mixes seeds


def uniforms(seeds: np.ndarray, count: int) -> np.ndarray:
    """Draws float32 [n, count] in [0, 1), multiples of 2**-23, from int64 seeds [n, 2]."""
    n, blocks = len(seeds), -(-count // 4)
    mixed = _philox(np.ascontiguousarray(seeds).view(np.uint32).T, _SEED_KEY)
    counters = np.zeros((4, n, blocks), np.uint32)
    counters[0] = np.arange(blocks)
    counters[2:] = mixed[2:, :, None]
    keys = np.repeat(mixed[:2], blocks, axis=1)
    words = _philox(counters.reshape(4, -1), keys).T.reshape(n, 4 * blocks)[:, :count]
    one_to_two = (words & 0x7FFFFF | 0x3F800000).view(np.float32)
    return one_to_two - np.float32(1)


def _philox(counters: np.ndarray, keys: np.ndarray) -> np.ndarray:
    """Encrypts counters uint32 [4, m] by keys [2, m] or [2, 1]."""
    even, odd = counters[::2], counters[1::2]
    for _ in range(_ROUNDS):
        products = even * _FACTORS  # uint64 [2, m]
        low, high = products.astype(np.uint32), (products >> np.uint64(32)).astype(np.uint32)
        even, odd = high[::-1] ^ odd ^ keys, low[::-1]
        keys = keys + _KEY_STEPS
    return np.stack([even, odd], axis=1).reshape(4, -1)
