"""Mixup and cutmix of the images of a batch, on the device.

Each example is mixed with its partner in the reversed batch of the same device, and one draw holds
for the whole step on all devices, as in timm's `Mixup` with mode='batch', where each process draws
its own. A draw is a function of the seed and the step; partners also depend on the devices.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

# Of a key and a height and width: the share [H, W] of an image in its mixture, and its label's.
MixFn = Callable[[jax.Array, int, int], tuple[jax.Array, jax.Array]]


class Targets(NamedTuple):
    """Mixed targets: `label` with probability `weight`, else `other`; each [N]."""

    label: jax.Array
    other: jax.Array
    weight: jax.Array

    @property
    def dominant_label(self) -> jax.Array:
        """The label with the larger weight, int [N]."""
        return jnp.where(self.weight >= 0.5, self.label, self.other)


def draw(
    key: jax.Array,
    height: int,
    width: int,
    *,
    mixup_alpha: float,
    cutmix_alpha: float,
    switch_prob: float,
) -> tuple[jax.Array, jax.Array]:
    """Draws how the images of a step are mixed.

    Mixup (Zhang et al. 2018): share and weight are lambda ~ Beta(alpha, alpha) everywhere. Cutmix
    (Yun et al. 2019): the share is 0 inside of a random box, 1 outside, and the weight its mean.

    Args:
      key: of the step.
      height, width: of the images.
      mixup_alpha, cutmix_alpha: 0 turns one of them off.
      switch_prob: probability of cutmix where both are on.

    Returns:
      The share of an image itself at each pixel, float32 [H, W], and the weight of its own label.
    """
    choice_key, weight_key, y_key, x_key = jax.random.split(key, 4)
    probability = switch_prob if mixup_alpha and cutmix_alpha else float(cutmix_alpha > 0)
    cuts = jax.random.uniform(choice_key) < probability
    alpha = jnp.where(cuts, cutmix_alpha or 1.0, mixup_alpha or 1.0)
    weight = jax.random.beta(weight_key, alpha, alpha)
    inside = box(
        weight,
        jax.random.randint(y_key, (), 0, height),
        jax.random.randint(x_key, (), 0, width),
        height,
        width,
    )
    outside = 1 - inside.astype(weight.dtype)
    share = jnp.where(cuts, outside, weight)
    return share, jnp.where(cuts, jnp.mean(outside), weight)


def box(weight: jax.Array, y: jax.Array, x: jax.Array, height: int, width: int) -> jax.Array:
    """The box of cutmix, bool [H, W]: of area 1 - weight before it is clipped at the borders.

    Centered at pixel (y, x); a side of odd length extends further down and to the right.
    """

    def between(center: jax.Array, size: int) -> jax.Array:  # [size]
        length = (size * jnp.sqrt(1 - weight)).astype(jnp.int32)
        pixel = jnp.arange(size)
        return (pixel >= center - length // 2) & (pixel < center + (length + 1) // 2)

    return between(y, height)[:, None] & between(x, width)[None, :]


def mix(
    share: jax.Array, weight: jax.Array, images: jax.Array, partners: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Mixes images [N, H, W, C] with their partners, share * image + (1 - share) * partner.

    Args:
      share: of the image at each pixel, [H, W].
      weight: of its label, scalar.
      images, partners: preprocessed.
      mask: bool [N]; where it is False, the partner is padding and the image stays alone.

    Returns:
      The mixed images, and the weight of each image's own label [N].
    """
    share, weight = share.astype(images.dtype), weight.astype(images.dtype)
    shares = jnp.where(mask[:, None, None], share, 1)[..., None]  # [N, H, W, 1]
    return shares * images + (1 - shares) * partners, jnp.where(mask, weight, 1)


def make_mixing(config: ConfigDict) -> MixFn | None:
    """The mixing of `config.mix`, or None if it is off."""
    if not config.mixup_alpha and not config.cutmix_alpha:
        return None
    return partial(
        draw,
        mixup_alpha=config.mixup_alpha,
        cutmix_alpha=config.cutmix_alpha,
        switch_prob=config.switch_prob,
    )
