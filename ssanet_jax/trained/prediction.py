"""Predictions of a trained model: logits, and the most probable classes."""

from typing import NamedTuple

import jax
import numpy as np
import scipy.special
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ssanet_jax.models.batch_norm_folding import for_inference
from ssanet_jax.trained.sources import AnyModel
from ssanet_jax.training.parallel import local_mesh, replicated
from ssanet_jax.training.steps import DATA_AXIS, predict


class Prediction(NamedTuple):
    """A class name and its probability."""

    name: str
    probability: float


class Predictor:
    """Computes logits as in evaluation, for any number of images, on all devices of this host.

    Args:
      trained: from `ssanet_jax.load`.
      batch_size: images per call of the network; rounded up to a multiple of the devices. Smaller
        batches are padded, so that the network is compiled once.
    """

    def __init__(self, trained: AnyModel, batch_size: int = 64):
        mesh = local_mesh()
        model, variables = for_inference(trained.model, trained.variables)
        self._variables = jax.device_put(dict(variables), replicated(mesh))
        self._sharding = NamedSharding(mesh, P(DATA_AXIS))
        self._batch_size = -(-batch_size // mesh.size) * mesh.size
        self._classes = trained.classes
        size, flip = trained.preprocessing.size, trained.preprocessing.flip
        self._shape = (size, size, 3)
        preprocess = trained.preprocess
        self._logits = jax.jit(lambda v, image: predict(v, image, model, preprocess, flip=flip))

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Float32 [N, K] of uint8 images [N, size, size, 3], as from `data.file_batches`.

        Raises:
          ValueError: images have another dtype or size.
        """
        if images.dtype != np.uint8 or images.shape[1:] != self._shape:
            expected = ', '.join(map(str, self._shape))
            raise ValueError(
                f'Predictor expects uint8 images [N, {expected}], got {images.dtype} '
                f'{list(images.shape)}; make them with data.file_batches.'
            )
        parts = [np.zeros((0, len(self._classes)), np.float32)]
        for start in range(0, len(images), self._batch_size):
            part = images[start : start + self._batch_size]
            missing = self._batch_size - len(part)
            batch = np.pad(part, ((0, missing), (0, 0), (0, 0), (0, 0)))
            logits = self._logits(self._variables, jax.device_put(batch, self._sharding))
            parts.append(np.asarray(logits)[: len(part)])
        return np.concatenate(parts)

    def top(self, images: np.ndarray, count: int = 5) -> list[list[Prediction]]:
        """The `count` most probable classes of each image, the most probable first.

        Raises:
          ValueError: as for `logits`.
        """
        probabilities = scipy.special.softmax(self.logits(images), axis=1)
        order = np.argsort(-probabilities, axis=1, kind='stable')[:, :count]
        return [
            [Prediction(self._classes[label], float(row[label])) for label in labels]
            for row, labels in zip(probabilities, order, strict=True)
        ]
