"""Corruptions of test images."""

from collections.abc import Callable, Mapping

import numpy as np

CORRUPTIONS: Mapping[str, Callable[[np.ndarray, int], np.ndarray]] = {}
