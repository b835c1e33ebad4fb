"""Calibration error and temperature scaling."""

import math
from typing import NamedTuple

import numpy as np
import scipy.optimize
import scipy.special

TEMPERATURES = (0.05, 20.0)  # range of the fit


class Reliability(NamedTuple):
    """Images binned by the probability of their most probable class; arrays [bins].

    Attributes:
      edges: [bins + 1], equally spaced from 0 to 1; a bin includes its upper edge.
      counts: number of images.
      confidence: mean probability of the most probable class; NaN in empty bins.
      accuracy: share of images whose most probable class is correct; NaN in empty bins.
    """

    edges: np.ndarray
    counts: np.ndarray
    confidence: np.ndarray
    accuracy: np.ndarray

    @property
    def ece(self) -> float:
        """The expected calibration error, the mean gap between confidence and accuracy::

            ECE = sum_b n[b] / N * |accuracy[b] - confidence[b]|

        over bins b of N images (Naeini et al. 2015, binned by the probability of the most
        probable class as in Guo et al. 2017, equation 3).

        >>> reliability(np.array([[0.75, 0.25], [0.5, 0.5]]), np.array([0, 1])).ece
        0.375
        """
        gaps = np.abs(self.accuracy - self.confidence)
        return float(np.sum(gaps * self.counts, where=self.counts > 0) / self.counts.sum())


def reliability(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15) -> Reliability:
    """The data of a reliability diagram (Guo et al. 2017, section 2).

    Args:
      probabilities: [N, K], rows sum to 1.
      labels: int [N], from 0 to K - 1.
      bins: number of bins of equal width.

    Raises:
      ValueError: there is no image, or the shapes or values are not as above.
    """
    _check(probabilities, labels)
    if probabilities.min() < 0 or not np.allclose(probabilities.sum(axis=1), 1, atol=1e-2):
        raise ValueError('Expected probabilities, whose rows sum to 1; apply softmax to logits.')
    confidence = probabilities.max(axis=1)
    correct = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    index = np.clip(np.searchsorted(edges, confidence) - 1, 0, bins - 1)
    counts = np.bincount(index, minlength=bins)
    with np.errstate(invalid='ignore'):  # 0 / 0
        return Reliability(
            edges,
            counts,
            np.bincount(index, weights=confidence, minlength=bins) / counts,
            np.bincount(index, weights=correct, minlength=bins) / counts,
        )


def fit_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    """The T that minimizes the mean cross-entropy of softmax(logits / T) (Guo et al. 2017).

    Above 1 the network is overconfident, below 1 underconfident. The loss is convex in 1 / T; the
    root of its derivative, mean_n(sum_k p[n, k] z[n, k] - z[n, label]), is clipped to
    `TEMPERATURES`: the lower bound if every prediction is correct. Returns 1 if T has no effect.

    Args:
      logits: float [N, K], finite.
      labels: int [N], from 0 to K - 1.

    Raises:
      ValueError: there is no image, or the shapes or values are not as above.
    """
    _check(logits, labels)
    z = logits - logits.max(axis=1, keepdims=True)
    own = z[np.arange(len(z)), labels].mean(dtype=np.float64)

    def slope(log_temperature: float) -> float:
        p = scipy.special.softmax(z * np.exp(-log_temperature).astype(z.dtype), axis=1)
        p *= z
        return float(p.sum(axis=1).mean(dtype=np.float64) - own)

    low, high = map(math.log, TEMPERATURES)
    at_low, at_high = slope(low), slope(high)  # slope falls as the temperature rises
    if at_low == at_high:
        return 1.0
    if at_low <= 0:
        return TEMPERATURES[0]
    if at_high >= 0:
        return TEMPERATURES[1]
    return math.exp(scipy.optimize.brentq(slope, low, high, xtol=1e-6))


def cross_fitted(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, tuple[float, float]]:
    """Probabilities at cross-fitted temperatures: each fitted on other images.

    A fixed permutation splits the images into halves; each uses the temperature of the other.

    Args:
      logits, labels: as for `fit_temperature`, of at least 2 images.

    Returns:
      Probabilities [N, K], dtype of logits, and the temperatures of both halves.

    Raises:
      ValueError: there are fewer than 2 images, or as for `fit_temperature`.
    """
    if len(labels) < 2:
        raise ValueError(f'cross_fitted needs at least 2 images, got {len(labels)}.')
    first, second = np.array_split(np.random.default_rng(0).permutation(len(labels)), 2)
    probabilities, temperatures = np.empty_like(logits), []
    for half, other in ((first, second), (second, first)):
        temperature = fit_temperature(logits[other], labels[other])
        scaled = logits[half] / logits.dtype.type(temperature)
        probabilities[half] = scipy.special.softmax(scaled, axis=1)
        temperatures.append(temperature)
    return probabilities, (temperatures[0], temperatures[1])


def _check(values: np.ndarray, labels: np.ndarray) -> None:
    """Raises ValueError unless values are finite [N, K] with labels [N] below K, and N > 0."""
    if values.ndim != 2 or labels.shape != values.shape[:1]:
        raise ValueError(f'Expected [N, K] and labels [N], got {values.shape} and {labels.shape}.')
    if not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(f'Expected integer labels, got {labels.dtype}.')
    if not len(labels):
        raise ValueError('Calibration needs at least 1 image, got none.')
    if labels.min() < 0 or labels.max() >= values.shape[1]:
        raise ValueError(
            f'Labels are from {labels.min()} to {labels.max()}, but there are '
            f'{values.shape[1]} classes; exclude images without a label.'
        )
    if not np.isfinite(values).all():
        raise ValueError('Some probabilities or logits are not finite; the network has diverged.')
