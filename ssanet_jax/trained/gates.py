"""Gate statistics and ablation of a trained model, on all devices of this host."""

from collections.abc import Callable, Iterable, Iterator, Mapping

import jax
import numpy as np

from ssanet_jax.analysis.gate_moments import BINS
from ssanet_jax.analysis.gates import GateStatistics, gate_statistics
from ssanet_jax.models.batch_norm_folding import for_inference
from ssanet_jax.models.network import Network
from ssanet_jax.trained.ablation import Ablation, ablate
from ssanet_jax.trained.load import TrainedModel
from ssanet_jax.training.parallel import local_mesh, replicated, to_devices

# 'image' uint8 [N, s, s, 3], 'label' int [N], 'mask' bool [N]; this host's devices divide N.
Batch = Mapping[str, np.ndarray]


def statistics_of(trained: TrainedModel, batches: Iterable[Batch]) -> dict[str, GateStatistics]:
    """`gate_statistics` of a trained model, with histograms of `BINS` bins.

    Excludes undecodable images (label -1), which are black.

    Args:
      trained: from `ssanet_jax.load`.
      batches: as from `data.eval_batches`.

    Raises:
      ValueError: the network has no gate, or there is no batch.
    """
    model, variables = _on_devices(trained)
    sharded = to_devices(_decodable(batches), local_mesh())
    return gate_statistics(model, variables, sharded, preprocess=trained.preprocess, bins=BINS)


def ablation_of(
    trained: TrainedModel,
    batches: Iterable[Batch],
    statistics: Mapping[str, GateStatistics],
    advance: Callable[[], object] = lambda: None,
) -> Ablation:
    """`ablate` of a trained model. Undecodable images count as incorrect, as in evaluation.

    Args:
      trained: from `ssanet_jax.load`.
      batches: those of `statistics`.
      statistics: from `statistics_of`.
      advance: called `ablation.evaluations(statistics)` times per batch.

    Raises:
      ValueError: there is no batch.
    """
    model, variables = _on_devices(trained)
    sharded = to_devices(batches, local_mesh())
    return ablate(
        model,
        variables,
        sharded,
        statistics,
        preprocess=trained.preprocess,
        flip=trained.preprocessing.flip,
        advance=advance,
    )


def subsample(batches: Iterable[Batch], count: int, total: int) -> list[Batch]:
    """Selects `count` evenly spaced images of `total` in padded batches; returns such batches."""
    parts, size, start = [], 0, 0
    for batch in batches:
        size = len(batch['mask'])
        positions = start + np.cumsum(batch['mask'])  # from 1
        start = positions[-1]
        share = min(count, total)
        keep = batch['mask'] & (positions * share // total > (positions - 1) * share // total)
        parts.append({name: array[keep] for name, array in batch.items()})
    joined = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    missing = -len(joined['mask']) % size
    padded = {
        name: np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
        for name, array in joined.items()
    }
    return [
        {name: array[first : first + size] for name, array in padded.items()}
        for first in range(0, len(padded['mask']), size)
    ]


def _on_devices(trained: TrainedModel) -> tuple[Network, Mapping[str, object]]:
    model, variables = for_inference(trained.model, trained.variables)
    return model, jax.device_put(dict(variables), replicated(local_mesh()))


def _decodable(batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
        yield {**batch, 'mask': batch['mask'] & (batch['label'] >= 0)}
