"""One pass over the evaluation split: every image's logits, loss and rank; the hardest images."""

from typing import NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from ssanet_jax import data
from ssanet_jax.errors import ConfigError
from ssanet_jax.trained.load import TrainedModel
from ssanet_jax.trained.prediction import Predictor
from ssanet_jax.training.losses import evaluation_loss
from ssanet_jax.training.metrics import label_rank

_BATCH_SIZE = 256  # images at a time, at most; what is computed does not depend on it


class Kept(NamedTuple):
    """Images uint8 [n, H, W, 3] with their numbers in the split, [n]."""

    number: np.ndarray
    image: np.ndarray


class Evaluation(NamedTuple):
    """The evaluation images in their order, N of them, as a network of K classes sees them.

    Attributes:
      logits: float32 [N, K].
      label: int [N]; -1: could not be decoded, and no answer is right.
      loss: float32 [N], cross-entropy in nats; log K for a bad image, as in evaluation.
      rank: int [N], classes that come before the label; 0 where the prediction is right.
      hardest: images of the highest losses, these falling; bad ones are not among them.
      sample: good images at equal distances, for what is too dear to compute of all.
      num_train: images of the training split.
    """

    logits: np.ndarray
    label: np.ndarray
    loss: np.ndarray
    rank: np.ndarray
    hardest: Kept
    sample: Kept
    num_train: int

    def means(self) -> dict[str, float]:
        """{'loss', 'top1', 'top5', 'num_examples'} as in metrics.jsonl, accuracies in percent."""
        return {
            'loss': float(self.loss.mean(dtype=np.float64)),
            'top1': 100 * float((self.rank < 1).mean()),
            'top5': 100 * float((self.rank < 5).mean()),
            'num_examples': len(self.label),
        }

    def good(self) -> np.ndarray:
        """Numbers of the images that could be decoded."""
        return np.flatnonzero(self.label >= 0)

    def not_finite(self) -> int:
        """How many of these have logits that are not."""
        return int(np.sum(~np.isfinite(self.logits[self.good()]).all(axis=1)))


def evaluate_run(run: TrainedModel, *, hardest: int, sample: int) -> Evaluation:
    """Evaluates a run on the whole of its `eval_split`, on this host alone.

    Args:
      run: from `ssanet_jax.load_trained`.
      hardest: how many images of the highest losses to keep, at most.
      sample: how many to keep besides, at least if there are as many, and fewer than twice.

    Raises:
      ConfigError: the data are not at hand, cannot be decoded, or have other classes.
    """
    config, info = _checked(run)
    every = max(1, info.num_eval // sample)
    predictor = Predictor(run, config.eval_batch_size)
    parts: list[tuple[np.ndarray, ...]] = []
    hard, chosen = _no_images(config), [_no_images(config)]
    start, num_good, losses = 0, 0, np.zeros(0, np.float32)  # losses of the hardest
    for batch in data.eval_batches(config, config.dataset.eval_split, share=data.HostShard(0, 1)):
        mask, image = batch['mask'], batch['image']
        logits = predictor.logits(image)
        loss, rank = map(np.asarray, _judge(logits, batch['label']))
        part = tuple(array[mask] for array in (logits, batch['label'], loss, rank))
        parts.append(part)
        number, image = start + np.arange(mask.sum()), image[mask]
        hard, losses = _hardest(hard, losses, Kept(number, image), part, hardest)
        good = np.flatnonzero(part[1] >= 0)
        some = good[-num_good % every :: every]
        chosen.append(Kept(number[some], image[some]))
        start, num_good = start + len(number), num_good + len(good)
    logits, label, loss, rank = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Evaluation(logits, label, loss, rank, hard, _join(chosen), info.num_train)


def _checked(run: TrainedModel) -> tuple[ConfigDict, data.DatasetInfo]:
    """The config to evaluate with, and what the data are."""
    config = run.config.copy_and_resolve_references()
    info, expected = data.dataset_info(config), len(run.classes)
    if info.num_classes != expected:
        raise ConfigError(
            f'{config.dataset.name} has {info.num_classes} classes, but the network tells '
            f'{expected} apart; put the data back that it was trained on.'
        )
    size = config.eval_batch_size if config.eval_batch_size > 0 else config.batch_size
    config.eval_batch_size = min(size, _BATCH_SIZE)
    return config, info


@jax.jit
def _judge(logits: jax.Array, label: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The loss and the rank of each image, both [N], as `training.steps.eval_step` has them."""
    return evaluation_loss(logits, label), label_rank(logits, label)


def _hardest(
    kept: Kept, losses: np.ndarray, new: Kept, part: tuple[np.ndarray, ...], count: int
) -> tuple[Kept, np.ndarray]:
    """The `count` of highest loss among those kept before and the good ones of a batch."""
    _, label, loss, _ = part
    loss = np.where(np.isnan(loss), np.inf, loss)
    best = np.argsort(np.where(label < 0, np.inf, -loss), kind='stable')[:count]
    best = best[label[best] >= 0]
    both = _join([kept, Kept(new.number[best], new.image[best])])
    losses = np.concatenate([losses, loss[best]])
    order = np.argsort(-losses, kind='stable')[:count]
    return Kept(both.number[order], both.image[order]), losses[order]


def _join(parts: list[Kept]) -> Kept:
    return Kept(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _no_images(config: ConfigDict) -> Kept:
    size = config.dataset.image_size
    return Kept(np.zeros(0, np.int64), np.zeros((0, size, size, 3), np.uint8))
