"""Scores of a trained network on the sets of `benchmarks`."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean as mean
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from ssanet_jax import data
from ssanet_jax.errors import ConfigError
from ssanet_jax.trained.benchmarks import Benchmark
from ssanet_jax.trained.load import TrainedModel
from ssanet_jax.trained.prediction import Predictor
from ssanet_jax.training.metrics import label_rank


class Score(NamedTuple):
    """Counts of images; undecodable ones are incorrect.

    Attributes:
      images: with a label.
      top1, top5: of these, with a label as the prediction, or among the five highest logits.
      unlabelled: left out.
      undecodable: of `images`.
    """

    images: int = 0
    top1: int = 0
    top5: int = 0
    unlabelled: int = 0
    undecodable: int = 0


def add(scores: Iterable[Score]) -> Score:
    """The counts of all images together."""
    return Score(*map(sum, zip(*scores, strict=True)))


class Part(NamedTuple):
    """One dataset of a benchmark, opened: its config, its size, and the classes to choose among."""

    dataset: ConfigDict
    size: int
    columns: np.ndarray


def open_part(
    trained: TrainedModel, benchmark: Benchmark, name: str, data_dir: str | None = None
) -> Part:
    """Opens a dataset of `benchmark.parts` and checks that it has the classes of the network.

    Args:
      trained: from `ssanet_jax.load`.
      benchmark: of `BENCHMARKS`.
      name: of the dataset.
      data_dir: of prepared datasets; by default that of the run.

    Raises:
      ConfigError: the dataset is not prepared, or has other classes.
    """
    from ssanet_jax.data.builders import class_names, open_builder, split_size

    dataset = trained.config.copy_and_resolve_references().dataset
    dataset.name, dataset.data_dir = name, data_dir or dataset.data_dir
    if benchmark.cropped:
        dataset.eval_crop = 'whole'
    builder = open_builder(dataset)
    label = builder.info.features[benchmark.label]
    label = getattr(label, 'feature', label)  # of a sequence
    names, unnamed = class_names(label), tuple(map(str, range(label.num_classes)))
    if benchmark.classes:
        names = benchmark.classes
        matches = names == trained.classes
    else:
        matches = names == trained.classes or (
            len(names) == len(trained.classes) and unnamed in (names, trained.classes)
        )
    if not matches:
        raise ConfigError(
            f'{name} has {len(names):,} classes, as {names[0]!r}, but the network has '
            f'{len(trained.classes):,} others, as {trained.classes[0]!r}; evaluate a network that '
            'was trained on the same classes.'
        )
    columns = np.arange(len(names))
    if benchmark.subset:
        ids = (Path(data.__file__).parent / benchmark.subset).read_text().split()
        columns = np.array([label.str2int(wordnet_id) for wordnet_id in ids])
    return Part(dataset, split_size(builder, benchmark.split), columns)


def evaluate_part(
    predictor: Predictor,
    benchmark: Benchmark,
    part: Part,
    *,
    batch_size: int = 64,
    advance: Callable[[int], object] = lambda images: None,
) -> Score:
    """Scores every image of a dataset once, resized and cropped as in the run's evaluation.

    An image is correct if its prediction among the classes of the benchmark is any of its labels
    (Beyer et al. 2020, https://arxiv.org/abs/2006.07159); without a label it is left out.

    Args:
      predictor: of the network.
      benchmark: that `part` is of.
      part: from `open_part`.
      batch_size: images per batch; results do not depend on it.
      advance: called with the number of images of each batch.

    Raises:
      ConfigError: the dataset is not available, or not as expected.
      RunError: it cannot be read now.
    """
    from ssanet_jax.data.labelled import labelled_files

    waiting: deque[np.ndarray] = deque()

    def files() -> Iterator[bytes]:
        for example in labelled_files(part.dataset, benchmark.split, benchmark.label):
            waiting.append(example.labels)
            yield example.file

    scores = [Score()]
    for batch in data.file_batches(files(), part.dataset, batch_size):
        logits = predictor.logits(batch.image)
        correct = np.zeros(logits.shape, bool)
        for row in range(len(correct)):
            correct[row, waiting.popleft()] = True
        columns = part.columns
        scores.append(score(logits[:, columns], correct[:, columns], list(batch.bad)))
        advance(len(batch.image))
    return add(scores)


def score(logits: np.ndarray, correct: np.ndarray, undecodable: list[int]) -> Score:
    """Counts over a batch.

    Args:
      logits: float32 [N, K].
      correct: bool [N, K], the labels of each image.
      undecodable: rows of images that count as incorrect.
    """
    best = np.where(correct, logits, -np.inf).argmax(axis=1).astype(np.int32)
    rank = np.array(label_rank(jnp.asarray(logits), jnp.asarray(best)))
    rank[undecodable] = logits.shape[1]
    labelled = np.asarray(correct.any(axis=1))
    return Score(
        images=int(labelled.sum()),
        top1=int((labelled & (rank < 1)).sum()),
        top5=int((labelled & (rank < min(5, logits.shape[1]))).sum()),
        unlabelled=int((~labelled).sum()),
        undecodable=int(labelled[undecodable].sum()),
    )


def top1_errors(scores: Mapping[tuple[str, int], Score]) -> dict[str, list[float]]:
    """Top-1 errors of each corruption in percent, by severity."""
    errors: dict[str, list[float]] = {}
    for (corruption, _), part in scores.items():
        errors.setdefault(corruption, []).append(100 * (1 - part.top1 / part.images))
    return errors


def corruption_errors(
    errors: Mapping[str, Sequence[float]], reference: Mapping[str, float]
) -> dict[str, float]:
    """CE of each corruption, percent: its mean error over that of the reference; 'mean' is mCE.

    >>> corruption_errors({'fog': [30, 50], 'snow': [10, 10]}, {'fog': 80, 'snow': 40})
    {'fog': 50.0, 'snow': 25.0, 'mean': 37.5}
    """
    relative = {name: 100 * mean(errors[name]) / reference[name] for name in reference}
    return {**relative, 'mean': mean(list(relative.values()))}
