"""Arrays for tests of bit-exact conversion."""

import jax
import numpy as np


def random_bits(shapes):
    """float32 arrays of random bits, including NaNs."""
    rng = np.random.default_rng(0)
    return jax.tree.map(
        lambda leaf: rng.integers(2**32, size=leaf.shape, dtype=np.uint32).view(np.float32), shapes
    )


def bits(tree):
    return jax.tree.map(lambda a: np.ascontiguousarray(a).view(np.uint32), tree)
