"""Masked moments of a gate's values, which can be merged over batches."""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

# A value is saturated in the outer 5% of its range, where a sigmoid's slope is below a fifth of
# its maximum.
SATURATED = 0.05
BINS = 100  # of the histograms in figures; SATURATED is a multiple of their width


class GateMoments(NamedTuple):
    """Sums from which `GateStatistics` follow; `merge` combines those of two sets of images.

    Attributes:
      images: their number, float32: exact up to 2**24.
      means: over images and pixels, [maps].
      squares: squared deviation of each image's mean from `means`, summed over images, [maps].
      averages: means over images of: variance within maps, spatial_std, low, high, entropy, [5].
      histogram: mean over images, [bins].
    """

    images: jax.Array
    means: jax.Array
    squares: jax.Array
    averages: jax.Array
    histogram: jax.Array


def moments(gate: jax.Array, mask: jax.Array, top: float, bins: int) -> GateMoments:
    """Moments of a gate [N, h, w, maps], from 0 to `top`, in the images of mask [N]."""
    n, height, width, maps = gate.shape
    values = gate.reshape(n, height * width, maps)
    count = jnp.sum(mask.astype(jnp.float32))

    def average(per_image: jax.Array) -> jax.Array:
        """[N, ...] over the images of the mask."""
        where = mask.reshape(n, *[1] * (per_image.ndim - 1))
        return jnp.sum(per_image, axis=0, where=where) / jnp.maximum(count, 1)

    centers = jnp.mean(values, axis=1)  # [N, maps]
    within = jnp.mean(jnp.square(values - centers[:, None]), axis=1)  # [N, maps]
    means = average(centers)
    numbers = [
        jnp.mean(within, axis=1),
        jnp.mean(jnp.sqrt(within), axis=1),
        jnp.mean(values < SATURATED * top, axis=(1, 2), dtype=jnp.float32),
        jnp.mean(values > (1 - SATURATED) * top, axis=(1, 2), dtype=jnp.float32),
        jnp.mean(_entropy(values), axis=1),
    ]
    return GateMoments(
        images=count,
        means=means,
        squares=average(jnp.square(centers - means)) * count,
        averages=average(jnp.stack(numbers, axis=-1)),
        histogram=average(_histograms(values / top, bins)),
    )


def _entropy(values: jax.Array) -> jax.Array:
    """Entropy over the pixels of values [N, pixels, maps], as a share of its maximum: [N, maps].

    A map that is 0 everywhere is as uniform as any other constant.
    """
    if values.shape[1] == 1:
        return jnp.ones(values.shape[::2])
    total = jnp.sum(values, axis=1)
    shares = values / jnp.where(total > 0, total, 1)[:, None]
    nats = jnp.sum(jax.scipy.special.entr(shares), axis=1)
    return jnp.where(total > 0, nats / math.log(values.shape[1]), 1)


def _histograms(values: jax.Array, bins: int) -> jax.Array:
    """Shares [N, bins] of each image's values [N, pixels, maps] in equal bins of 0..1."""
    if bins == 0:
        return jnp.zeros((len(values), 0))
    flat = values.reshape(len(values), math.prod(values.shape[1:]))
    index = jnp.clip(jnp.floor(flat * bins), 0, bins - 1).astype(jnp.int32)
    counts = jax.vmap(partial(jnp.bincount, length=bins))(index)
    return counts.astype(jnp.float32) / flat.shape[1]


def merge(a: GateMoments, b: GateMoments) -> GateMoments:
    """Moments over the images of both (Chan et al. 1979; subtracts no large sums)."""
    images = a.images + b.images
    share = b.images / jnp.maximum(images, 1)
    step = b.means - a.means
    return GateMoments(
        images=images,
        means=a.means + share * step,
        squares=a.squares + b.squares + a.images * share * step**2,
        averages=a.averages + share * (b.averages - a.averages),
        histogram=a.histogram + share * (b.histogram - a.histogram),
    )
