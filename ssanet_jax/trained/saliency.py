"""Where a trained network looks in images, from its run."""

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssanet_jax.analysis.saliency import grad_cam, rescale, resize, saliency_maps
from ssanet_jax.models.network import Network

if TYPE_CHECKING:
    from ssanet_jax.trained.load import TrainedModel

_LEGIBLE = 224  # pixels of a side, up to which small images are magnified


class Look(NamedTuple):
    """Where a network looks in one image.

    Attributes:
      image: uint8 [s, s, 3], as the network sees it.
      name: of the likeliest class.
      probability: of that class.
      maps: {'stage1': [h, w], ..., 'mean': [s, s], 'Grad-CAM': [h, w]} in float32, as computed;
        Grad-CAM is that of the likeliest class by the last feature map.
      blocks: {'layer1_0/ssa': [h, w], ...}, which the stages are means of.
    """

    image: np.ndarray
    name: str
    probability: float
    maps: dict[str, np.ndarray]
    blocks: dict[str, np.ndarray]


def look(run: 'TrainedModel', images: np.ndarray) -> list[Look]:
    """Where the network of a run looks in each image, and what it takes it for.

    Args:
      run: from `ssanet_jax.load`.
      images: uint8 [N, s, s, 3], sized as by `data.file_batches`.

    Raises:
      ValueError: its attention has no maps, see `saliency_maps`.
    """
    given = run.preprocess(jnp.asarray(images))
    variables = jax.device_put(run.variables)  # once for all three
    found = saliency_maps(run.model, variables, given)
    probabilities = np.asarray(_probabilities(run.model, variables, given))
    labels = probabilities.argmax(axis=1)
    cam = grad_cam(run.model, variables, given, labels)
    maps = _on_host({**found.stages, 'mean': found.mean, 'Grad-CAM': cam})
    blocks = _on_host(found.blocks)
    return [
        Look(
            images[row],
            run.classes[label],
            float(probabilities[row, label]),
            {name: value[row] for name, value in maps.items()},
            {name: value[row] for name, value in blocks.items()},
        )
        for row, label in enumerate(labels)
    ]


def _on_host(maps: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in maps.items()}  # in this order


@partial(jax.jit, static_argnums=0)
def _probabilities(model: Network, variables: Mapping[str, Any], images: jax.Array) -> jax.Array:
    logits: Any = model.apply(variables, images, train=False)
    return nn.softmax(logits)


def stage_maps(
    run: 'TrainedModel', images: np.ndarray, size: int | None = None
) -> dict[str, np.ndarray]:
    """The map of each stage, and their mean, ready for `saliency_figures.overlay`.

    Args:
      run: from `ssanet_jax.load`.
      images: uint8 [N, s, s, 3], sized as by `data.file_batches`.
      size: of the maps; None: s. `legible_size(s)` makes 8x8 images large enough to look at.

    Returns:
      {'stage1': float32 [N, size, size], ..., 'mean': ...}; 0 is the lowest value of a map, 1
      its highest.

    Raises:
      ValueError: its attention has no maps, see `saliency_maps`.
    """
    found = saliency_maps(run.model, run.variables, run.preprocess(jnp.asarray(images)))
    maps = _on_host({**found.stages, 'mean': found.mean})
    size = images.shape[1] if size is None else size
    return {name: enlarge(value, size) for name, value in maps.items()}


def enlarge(maps: np.ndarray, size: int) -> np.ndarray:
    """Maps [N, h, w], each rescaled to 0..1, then resized bilinearly to float32 [N, size, size]."""
    resized = np.asarray(resize(jnp.asarray(rescale(maps), jnp.float32), size, size))
    return np.clip(resized, 0, 1)  # of rounding


def legible_size(size: int) -> int:
    """The multiple of an image's size at which to draw it: 224 for 8 and 28, 224 for 224."""
    return size * max(1, _LEGIBLE // size)
