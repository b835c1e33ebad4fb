"""What a trained network says of images: logits, probabilities, the likeliest classes."""

from typing import NamedTuple

import jax
import numpy as np
import scipy.special
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from ssanet_jax.models.batch_norm_folding import for_inference
from ssanet_jax.trained.load import TrainedModel
from ssanet_jax.training.parallel import local_mesh, replicated
from ssanet_jax.training.steps import DATA_AXIS


class Guess(NamedTuple):
    """A class that an image may be of, by its name, and how probable that is."""

    name: str
    probability: float


class Predictor:
    """Logits of any number of images, computed as in evaluation, on all devices of this host.

    Args:
      run: from `ssanet_jax.load`.
      batch_size: images at a time; rounded up to a multiple of the devices. Fewer are padded, so
        that one program does for all.
    """

    def __init__(self, run: TrainedModel, batch_size: int = 64):
        mesh = local_mesh()
        model, variables = for_inference(run.model, run.variables)
        self._variables = jax.device_put(dict(variables), replicated(mesh))
        self._split = NamedSharding(mesh, P(DATA_AXIS))
        self._batch_size = -(-batch_size // mesh.size) * mesh.size
        self._classes = run.classes
        size = run.config.dataset.image_size
        self._shape = (size, size, 3)
        preprocess = run.preprocess
        self._logits = jax.jit(lambda v, image: model.apply(v, preprocess(image), train=False))

    def logits(self, images: np.ndarray) -> np.ndarray:
        """Float32 [N, K] of uint8 images [N, size, size, 3], sized as by `data.file_batches`.

        Raises:
          ValueError: images are of another type or size.
        """
        if images.dtype != np.uint8 or images.shape[1:] != self._shape:
            wanted = ', '.join(map(str, self._shape))
            raise ValueError(
                f'Predictor expects uint8 images [N, {wanted}], got {images.dtype} '
                f'{list(images.shape)}; make them with data.file_batches.'
            )
        parts = [np.zeros((0, len(self._classes)), np.float32)]
        for start in range(0, len(images), self._batch_size):
            some = images[start : start + self._batch_size]
            missing = self._batch_size - len(some)
            batch = np.pad(some, ((0, missing), (0, 0), (0, 0), (0, 0)))
            logits = self._logits(self._variables, jax.device_put(batch, self._split))
            parts.append(np.asarray(logits)[: len(some)])
        return np.concatenate(parts)

    def top(self, images: np.ndarray, count: int = 5) -> list[list[Guess]]:
        """For each image the likeliest classes, at most `count`, the likeliest first."""
        probabilities = scipy.special.softmax(self.logits(images), axis=1)
        order = np.argsort(-probabilities, axis=1, kind='stable')[:, :count]
        return [
            [Guess(self._classes[label], float(row[label])) for label in labels]
            for row, labels in zip(probabilities, order, strict=True)
        ]
