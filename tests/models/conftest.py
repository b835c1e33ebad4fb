import numpy as np
import pytest


@pytest.fixture
def images(rng):
    """Draws feature maps of a shape."""
    return lambda *shape, dtype=np.float64: rng.normal(0.5, 1.0, size=shape).astype(dtype)
