"""What happens to an image before a network sees it."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import TYPE_CHECKING, NamedTuple, Self

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
    from ml_collections import ConfigDict

Normalize = Callable[[jax.Array], jax.Array]


class Preprocessing(NamedTuple):
    """How evaluation turns an image file into an input of the network.

    Attributes:
      size: height and width of the input.
      resize: length of the short side in pixels before the center crop; None: the whole image is
        resized to [size, size].
      interpolation: 'bilinear' or 'bicubic', antialiased; of the whole image always bilinear.
      mean, std: per channel, of values in [0, 1].
      flip: whether logits are the mean over an image and its mirror image.
    """

    size: int
    resize: int | None
    interpolation: str
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool = False

    @classmethod
    def from_config(cls, dataset: 'ConfigDict') -> Self:
        """That of `config.dataset` of a run."""
        from ssanet_jax.config.sizes import eval_size, resized_side  # needs ml_collections

        size, center = eval_size(dataset), dataset.eval_crop == 'center'
        return cls(
            size,
            resized_side(size, dataset.eval_crop_pct) if center else None,
            dataset.interpolation if center else 'bilinear',
            tuple(dataset.mean),
            tuple(dataset.std),
            dataset.eval_flip,
        )

    @property
    def dataset(self) -> 'ConfigDict':
        """A `config.dataset` with which `data.file_batches` does the same."""
        from ssanet_jax.config import base  # needs ml_collections

        dataset = base().dataset
        dataset.image_size = self.size
        dataset.eval_crop = 'whole' if self.resize is None else 'center'
        dataset.eval_crop_pct = 1.0 if self.resize is None else self.size / self.resize
        dataset.interpolation = self.interpolation
        dataset.mean, dataset.std, dataset.eval_flip = self.mean, self.std, self.flip
        return dataset

    @property
    def normalize(self) -> Normalize:
        """Maps uint8 images [N, H, W, 3] to the network's input; see `normalizer`."""
        return normalizer(self.mean, self.std)


@cache
def normalizer(mean: tuple[float, ...], std: tuple[float, ...]) -> Normalize:
    """`normalize` with `mean` and `std`: one object for the same values, static under jit."""
    return partial(normalize, mean=mean, std=std)


def normalize(image: jax.Array, *, mean: Sequence[float], std: Sequence[float]) -> jax.Array:
    """Normalizes uint8 images [N, H, W, 3] to float32: (image / 255 - mean) / std per channel."""
    scale = 1 / (255 * jnp.asarray(std, jnp.float32))
    shift = jnp.asarray(mean, jnp.float32) / jnp.asarray(std, jnp.float32)
    return image.astype(jnp.float32) * scale - shift
