"""Finds the largest batch whose program fits a device's memory, with few compilations."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple


class Attempt(NamedTuple):
    """A program with one batch size.

    Attributes:
      fits: whether it compiles and fits.
      needed: bytes of memory, or None where the compiler does not say.
      error: of a compiler that failed for another reason.
    """

    fits: bool
    needed: float | None
    error: str | None = None


_MAX_ATTEMPTS = 3  # compilations


def largest_batch(
    attempt: Callable[[int], Attempt],
    tried: Mapping[int, Attempt],
    *,
    fixed: float,
    available: float,
    limit: int,
) -> dict[int, Attempt]:
    """Tries batches until none larger by a sixteenth can be expected to fit.

    Memory is taken as linear in the batch between the two attempts nearest to what is available.

    Args:
      attempt: compiles the program for a batch size.
      tried: at least one attempt that was made already.
      fixed: bytes that do not grow with the batch.
      available: bytes on the device.
      limit: largest batch to try.

    Returns:
      All attempts, those of `tried` included.

    >>> def attempt(batch):
    ...     return Attempt(batch <= 100, 10 * batch + 50)
    >>> sorted(largest_batch(attempt, {8: attempt(8)}, fixed=50, available=1050, limit=4096))
    [8, 100]
    """
    tried = dict(tried)
    for _ in range(_MAX_ATTEMPTS):
        guess = _next_guess(tried, fixed, available, limit)
        if guess is None:
            break
        tried[guess] = attempt(guess)
    return tried


def granularity(batch: int) -> int:
    """Step between candidate batches: a power of two from 1/32 to 1/16 of `batch`."""
    return max(1, 2 ** (math.frexp(batch)[1] - 5))


def _next_guess(
    tried: Mapping[int, Attempt], fixed: float, available: float, limit: int
) -> int | None:
    """The batch to try next; None if the largest that fits is known well enough."""
    lower = max((batch for batch, a in tried.items() if a.fits), default=0)
    upper = min((batch for batch, a in tried.items() if not a.fits), default=limit + 1)
    predicted = _predict(tried, fixed, available)
    if predicted is None or predicted >= upper:
        predicted = (lower + upper) / 2 if upper <= limit else predicted or 2 * lower
    step = granularity(max(1, min(int(predicted), upper - 1)))
    guess = int(min(predicted, upper - 1)) // step * step
    if guess <= lower:
        return 1 if lower == 0 and 1 not in tried else None
    return guess


def _predict(tried: Mapping[int, Attempt], fixed: float, available: float) -> float | None:
    """The batch that needs what is available, if memory is linear in the batch."""
    known = sorted(
        ((batch, a.needed) for batch, a in tried.items() if a.needed is not None),
        key=lambda pair: abs(pair[1] - available),
    )
    if not known:
        return None
    batch, needed = known[0]
    other, needed_other = known[1] if len(known) > 1 else (0, fixed)
    slope = (needed - needed_other) / (batch - other)
    return batch + (available - needed) / slope if slope > 0 else None
