"""Devices of all hosts: one mesh axis, steps mapped over it, batches split over it."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.steps import DATA_AXIS, DeviceBatch, TrainState

TrainStepFn = Callable[[TrainState, DeviceBatch, Metrics], tuple[TrainState, Metrics]]
EvalStepFn = Callable[[TrainState, DeviceBatch, Metrics], Metrics]

_PREFETCH = 2  # batches on the devices


def data_mesh() -> Mesh:
    """All devices of all hosts on one axis, 'data'."""
    return jax.make_mesh((jax.device_count(),), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def local_mesh(count: int | None = None) -> Mesh:
    """The first `count` devices of this host, or all of them, on one axis, 'data'."""
    devices = jax.local_devices()[:count]
    return jax.make_mesh(
        (len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )


def batch_norm_axis(group_size: int, num_devices: int) -> dict[str, Any]:
    """BatchNorm's arguments for statistics over groups of devices; 1: local, -1: all."""
    if group_size == 1:
        return {}
    if group_size in (-1, num_devices):
        return {'axis_name': DATA_AXIS}
    groups = np.arange(num_devices).reshape(-1, group_size)
    return {'axis_name': DATA_AXIS, 'axis_index_groups': groups.tolist()}


def parallel_train_step(step: Callable[..., Any], mesh: Mesh) -> TrainStepFn:
    """Maps `steps.train_step` over the mesh and adds its metrics to a running sum.

    The state is donated.
    """
    # The replication check does not support axis_index_groups, which grouped BatchNorm needs.
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(P(), P(DATA_AXIS)), out_specs=P(), check_vma=False
    )

    def train(state: TrainState, batch: DeviceBatch, total: Metrics) -> tuple[TrainState, Metrics]:
        state, metrics = mapped(state, batch)
        return state, total + metrics

    return jax.jit(train, donate_argnums=0)


def parallel_eval_step(step: Callable[..., Metrics], mesh: Mesh) -> EvalStepFn:
    """Maps `steps.eval_step` over the mesh and adds its metrics to a running sum."""
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(P(), P(DATA_AXIS)), out_specs=P(), check_vma=False
    )

    def evaluate(state: TrainState, batch: DeviceBatch, total: Metrics) -> Metrics:
        return total + mapped(state, batch)

    return jax.jit(evaluate)


def batch_shapes(batch_size: int, image_size: int, mesh: Mesh) -> dict[str, jax.ShapeDtypeStruct]:
    """The global arrays of a batch, as from `to_devices`, without their values."""
    arrays = {
        'image': ((batch_size, image_size, image_size, 3), np.uint8),
        'label': ((batch_size,), np.int32),
        'mask': ((batch_size,), bool),
    }
    sharding = NamedSharding(mesh, P(DATA_AXIS))
    return {
        name: jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
        for name, (shape, dtype) in arrays.items()
    }


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device of the mesh holds."""
    return NamedSharding(mesh, P())


def to_devices(batches: Iterable[Mapping[str, np.ndarray]], mesh: Mesh) -> Iterator[DeviceBatch]:
    """Each host's batches as global arrays split over the mesh, two ahead of their use."""
    sharding = NamedSharding(mesh, P(DATA_AXIS))
    waiting: deque[DeviceBatch] = deque()
    for batch in batches:
        waiting.append(jax.make_array_from_process_local_data(sharding, dict(batch)))
        if len(waiting) > _PREFETCH:
            yield waiting.popleft()
    yield from waiting
