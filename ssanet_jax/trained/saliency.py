"""Saliency maps and Grad-CAM of a trained model."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from ssanet_jax.analysis.saliency import grad_cam, rescale, resize, saliency_maps
from ssanet_jax.models.network import Network
from ssanet_jax.trained.sources import AnyModel
from ssanet_jax.training.objective import Preprocess
from ssanet_jax.training.steps import predict

_LEGIBLE = 224  # pixels per side, to which small images are magnified


class Saliency(NamedTuple):
    """Saliency maps and prediction of a network for one image.

    Attributes:
      image: uint8 [s, s, 3], as the network sees it.
      name: of the most probable class.
      probability: of that class.
      maps: {'stage1': [h, w], ..., 'mean': [s, s], 'Grad-CAM': [h, w]} in float32, not rescaled.
        Grad-CAM is that of the most probable class at the last feature map.
      blocks: {'layer1_0/ssa': [h, w], ...}, whose means the stages are.
    """

    image: np.ndarray
    name: str
    probability: float
    maps: dict[str, np.ndarray]
    blocks: dict[str, np.ndarray]


def explain(trained: AnyModel, images: np.ndarray) -> list[Saliency]:
    """The saliency maps and the prediction for each image.

    Args:
      trained: from `ssanet_jax.load`.
      images: uint8 [N, s, s, 3], as from `data.file_batches`.

    Raises:
      ValueError: the network has no spatial gate, see `saliency_maps`.
    """
    inputs = trained.preprocess(jnp.asarray(images))
    variables = jax.device_put(trained.variables)  # once for all three
    gates = saliency_maps(trained.model, variables, inputs)
    flip = trained.preprocessing.flip
    probabilities = np.asarray(
        _probabilities(trained.model, variables, images, trained.preprocess, flip)
    )
    labels = probabilities.argmax(axis=1)
    cam = grad_cam(trained.model, variables, inputs, labels)
    maps = _on_host({**gates.stages, 'mean': gates.mean, 'Grad-CAM': cam})
    blocks = _on_host(gates.blocks)
    return [
        Saliency(
            images[row],
            trained.classes[label],
            float(probabilities[row, label]),
            {name: value[row] for name, value in maps.items()},
            {name: value[row] for name, value in blocks.items()},
        )
        for row, label in enumerate(labels)
    ]


def _on_host(maps: Mapping[str, jax.Array]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in maps.items()}  # keeps the order


@partial(jax.jit, static_argnums=(0, 3, 4))
def _probabilities(
    model: Network, variables: Any, images: jax.Array, preprocess: Preprocess, flip: bool
) -> jax.Array:
    """Probabilities of the classes [N, K], as `Predictor` computes them."""
    return nn.softmax(predict(variables, images, model, preprocess, flip=flip))


def enlarge(saliency: np.ndarray, size: int) -> np.ndarray:
    """Rescales a map [h, w] to 0..1 and resizes it to [size, size], bilinearly."""
    scaled = jnp.asarray(rescale(saliency)[None], jnp.float32)
    return np.clip(np.asarray(resize(scaled, size, size))[0], 0, 1)  # rounding may exceed the range


def legible_size(size: int) -> int:
    """The multiple of an image's size at which to draw it: 224 for 8, 28 and 224."""
    return size * max(1, _LEGIBLE // size)
