"""What the gates of a trained network do, and what each is worth, from its run."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import jax
import numpy as np

from ssanet_jax.analysis.gate_moments import BINS
from ssanet_jax.analysis.gates import GateStatistics, gate_statistics
from ssanet_jax.models.batch_norm_folding import for_inference
from ssanet_jax.models.network import Network
from ssanet_jax.trained.ablation import Ablation, ablate
from ssanet_jax.training.parallel import local_mesh, replicated, to_devices

if TYPE_CHECKING:
    from ssanet_jax.trained.load import TrainedModel

# 'image' uint8 [N, s, s, 3], 'label' int [N], 'mask' bool [N]; N divides by this host's devices.
Batch = Mapping[str, np.ndarray]


def statistics_of(run: 'TrainedModel', batches: Iterable[Batch]) -> dict[str, GateStatistics]:
    """`gate_statistics` of a run, with histograms as they are drawn, on all devices of this host.

    Images that cannot be decoded (label -1) are left out: what the gates do with black says
    nothing.

    Args:
      run: from `ssanet_jax.load`.
      batches: as from `data.eval_batches`.

    Raises:
      ValueError: the network has no gate, or there is no batch.
    """
    model, variables = _on_devices(run)
    sharded = to_devices(_decoded(batches), local_mesh())
    return gate_statistics(model, variables, sharded, preprocess=run.preprocess, bins=BINS)


def knock_out_of(
    run: 'TrainedModel',
    batches: Iterable[Batch],
    statistics: Mapping[str, GateStatistics],
    advance: Callable[[], object] = lambda: None,
) -> Ablation:
    """`ablate` of a run, on all devices of this host.

    Images that cannot be decoded count as wrong, as in evaluation.

    Args:
      run: from `ssanet_jax.load`.
      batches: those of `statistics`.
      statistics: from `statistics_of`.
      advance: called `ablation.evaluations(statistics)` times a batch.
    """
    model, variables = _on_devices(run)
    sharded = to_devices(batches, local_mesh())
    return ablate(model, variables, sharded, statistics, preprocess=run.preprocess, advance=advance)


def evenly(batches: Iterable[Batch], count: int, total: int) -> list[Batch]:
    """At most `count` of the `total` images of padded batches, evenly spread, in such batches."""
    found, size, start = [], 0, 0
    for batch in batches:
        size = len(batch['mask'])
        places = start + np.cumsum(batch['mask'])  # from 1
        start = places[-1]
        share = min(count, total)
        keep = batch['mask'] & (places * share // total > (places - 1) * share // total)
        found.append({name: array[keep] for name, array in batch.items()})
    whole = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    missing = -len(whole['mask']) % size
    padded = {
        name: np.concatenate([array, np.zeros((missing, *array.shape[1:]), array.dtype)])
        for name, array in whole.items()
    }
    return [
        {name: array[first : first + size] for name, array in padded.items()}
        for first in range(0, len(padded['mask']), size)
    ]


def _on_devices(run: 'TrainedModel') -> tuple[Network, Mapping[str, object]]:
    model, variables = for_inference(run.model, run.variables)
    return model, jax.device_put(dict(variables), replicated(local_mesh()))


def _decoded(batches: Iterable[Batch]) -> Iterator[Batch]:
    for batch in batches:
        yield {**batch, 'mask': batch['mask'] & (batch['label'] >= 0)}
