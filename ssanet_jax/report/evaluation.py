"""Evaluates a run once: logits, loss and rank of every image, and the images of highest loss."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from ssanet_jax import data
from ssanet_jax.config.sizes import eval_batch_size, eval_size
from ssanet_jax.errors import ConfigError
from ssanet_jax.output import printable
from ssanet_jax.trained.load import TrainedModel
from ssanet_jax.trained.prediction import Predictor
from ssanet_jax.training.losses import evaluation_loss
from ssanet_jax.training.metrics import label_rank

_MAX_BATCH_SIZE = 256  # results do not depend on it


class Examples(NamedTuple):
    """Images uint8 [n, H, W, 3] with their positions in the split, int [n]."""

    position: np.ndarray
    image: np.ndarray


class Evaluation(NamedTuple):
    """Results for the N images of the evaluation split, in order, and K classes.

    Attributes:
      logits: float32 [N, K].
      label: int [N]; -1 if the image cannot be decoded, which counts as incorrect.
      loss: float32 [N], cross-entropy in nats; log K for an undecodable image.
      rank: int [N], number of classes above the label; 0 if the prediction is correct.
      hardest: the decodable images of highest loss, in descending order.
      sample: evenly spaced decodable images, for statistics too expensive to compute on all.
      num_train: number of training images.
      names: of every image: its file in a folder of images, or else '#' and its position.
    """

    logits: np.ndarray
    label: np.ndarray
    loss: np.ndarray
    rank: np.ndarray
    hardest: Examples
    sample: Examples
    num_train: int
    names: Sequence[str]

    def means(self) -> dict[str, float]:
        """The 'loss', 'top1', 'top5' and 'num_examples' of metrics.jsonl; accuracies in percent."""
        return {
            'loss': float(self.loss.mean(dtype=np.float64)),
            'top1': 100 * float((self.rank < 1).mean()),
            'top5': 100 * float((self.rank < 5).mean()),
            'num_examples': len(self.label),
        }

    def decodable(self) -> np.ndarray:
        """Positions of the decodable images."""
        return np.flatnonzero(self.label >= 0)

    def num_nonfinite(self) -> int:
        """The number of decodable images with a non-finite logit."""
        return int(np.sum(~np.isfinite(self.logits[self.decodable()]).all(axis=1)))


def evaluate_trained(trained: TrainedModel, *, hardest: int, sample: int) -> Evaluation:
    """Evaluates a run on all of its `eval_split`, on this host only.

    Args:
      trained: from `ssanet_jax.load`.
      hardest: number of images of highest loss to keep.
      sample: minimum number of evenly spaced images to keep, if there are as many.

    Raises:
      ConfigError: the dataset is missing or damaged, or has another number of classes.
    """
    config, info = _eval_config(trained)
    every = max(1, info.num_eval // sample)
    predictor = Predictor(trained, config.eval_batch_size)
    parts: list[tuple[np.ndarray, ...]] = []
    hard, sampled = _no_images(config), [_no_images(config)]
    start, num_good, losses = 0, 0, np.zeros(0, np.float32)  # of the hardest
    for batch in data.eval_batches(config, config.dataset.eval_split, shard=data.HostShard(0, 1)):
        mask, image = batch['mask'], batch['image']
        logits = predictor.logits(image)
        loss, rank = map(np.asarray, _loss_and_rank(logits, batch['label']))
        part = tuple(array[mask] for array in (logits, batch['label'], loss, rank))
        parts.append(part)
        position, image = start + np.arange(mask.sum()), image[mask]
        hard, losses = _hardest(hard, losses, Examples(position, image), part, hardest)
        good = np.flatnonzero(part[1] >= 0)
        some = good[-num_good % every :: every]
        sampled.append(Examples(position[some], image[some]))
        start, num_good = start + len(position), num_good + len(good)
    logits, label, loss, rank = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    names = _names(config, len(label))
    return Evaluation(logits, label, loss, rank, hard, _join(sampled), info.num_train, names)


def _names(config: ConfigDict, count: int) -> list[str]:
    if config.dataset.name != 'folder':
        return [f'#{position}' for position in range(count)]
    from ssanet_jax.data.builders import open_builder  # imports TFDS

    files = open_builder(config.dataset).select(config.dataset.eval_split)
    return [printable(file.name) for file in files]


def _eval_config(trained: TrainedModel) -> tuple[ConfigDict, data.DatasetInfo]:
    """The config to evaluate with, and the dataset it describes."""
    config = trained.config.copy_and_resolve_references()
    info, expected = data.dataset_info(config), len(trained.classes)
    if info.num_classes != expected:
        raise ConfigError(
            f'{config.dataset.name} has {info.num_classes} classes, but the network has '
            f'{expected}; restore the dataset that it was trained on.'
        )
    config.eval_batch_size = min(eval_batch_size(config), _MAX_BATCH_SIZE)
    return config, info


@jax.jit
def _loss_and_rank(logits: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The loss and rank of each image, both [N], as in `training.steps.eval_step`."""
    return evaluation_loss(logits, label), label_rank(logits, label)


def _hardest(
    kept: Examples, losses: np.ndarray, new: Examples, part: tuple[np.ndarray, ...], count: int
) -> tuple[Examples, np.ndarray]:
    """The `count` examples of highest loss among `kept` and the decodable ones of a batch."""
    _, label, loss, _ = part
    loss = np.where(np.isnan(loss), np.inf, loss)
    best = np.argsort(np.where(label < 0, np.inf, -loss), kind='stable')[:count]
    best = best[label[best] >= 0]
    both = _join([kept, Examples(new.position[best], new.image[best])])
    losses = np.concatenate([losses, loss[best]])
    order = np.argsort(-losses, kind='stable')[:count]
    return Examples(both.position[order], both.image[order]), losses[order]


def _join(parts: list[Examples]) -> Examples:
    return Examples(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _no_images(config: ConfigDict) -> Examples:
    size = eval_size(config.dataset)
    return Examples(np.zeros(0, np.int64), np.zeros((0, size, size, 3), np.uint8))
