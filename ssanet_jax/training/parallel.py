"""Hosts and devices: one mesh axis, steps mapped over it, errors and batches shared."""

import os
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, cast

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from ssanet_jax.errors import ConfigError, RunError
from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.steps import DATA_AXIS, DeviceBatch, TrainState

T = TypeVar('T')

HEARTBEAT_TIMEOUT_S = 40  # JAX's default of 100 s leaves the other hosts idle for longer

TrainStepFn = Callable[[TrainState, DeviceBatch, Metrics], tuple[TrainState, Metrics]]
EvalStepFn = Callable[[TrainState, DeviceBatch, Metrics], Metrics]


def initialize_hosts(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Connects the hosts of a run; call it before anything else touches a device.

    Without arguments, `jax.distributed` detects TPU pods, SLURM and other clusters; anything else
    is a single host.

    Raises:
      ConfigError: only some of the arguments are given, or they contradict each other.
    """
    arguments = [coordinator_address, num_processes, process_id]
    if num_processes is not None and process_id is not None and process_id >= num_processes:
        raise ConfigError(
            f'--process_id={process_id} is not below --num_processes={num_processes}; '
            'hosts count from 0.'
        )
    if None not in arguments:
        jax.distributed.initialize(
            coordinator_address,
            num_processes,
            process_id,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
        )
    elif any(value is not None for value in arguments):
        raise ConfigError(
            '--coordinator_address, --num_processes and --process_id belong together; got '
            f'{coordinator_address}, {num_processes} and {process_id}. Give all three or none.'
        )
    else:
        try:
            jax.distributed.initialize(heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S)
        except ValueError as error:
            if not _means_no_cluster(error):
                raise


def _means_no_cluster(error: ValueError) -> bool:
    """Whether JAX reports the same with its detection of clusters turned off."""
    if 'JAX_COORDINATOR_ADDRESS' in os.environ:
        return False
    try:
        jax.distributed.initialize(cluster_detection_method='deactivate')
    except ValueError as without_detection:
        return str(error) == str(without_detection)
    return False


def raise_on_all_hosts(attempt: Callable[[], T]) -> T:
    """Returns `attempt()`; if it raises ConfigError or RunError on one host, all hosts raise it.

    Hosts wait here for each other: an error on one alone would leave the others waiting for it.
    """
    if jax.process_count() == 1:
        return attempt()
    result, message = None, b''
    try:
        result = attempt()
    except (ConfigError, RunError) as error:
        message = f'{type(error).__name__}:{error}'.encode()
    sizes = multihost_utils.process_allgather(np.array(len(message))).tolist()
    if not any(sizes):
        return cast(T, result)
    padded = np.frombuffer(message.ljust(max(sizes), b'\0'), np.uint8)
    received = multihost_utils.process_allgather(padded)
    host = next(host for host, size in enumerate(sizes) if size)
    name, _, reason = received[host].tobytes()[: sizes[host]].decode().partition(':')
    kinds = {
        kind.__name__: kind for base in (ConfigError, RunError) for kind in _with_subclasses(base)
    }
    raise kinds.get(name, RunError)(f'Host {host}: {reason}')


def _with_subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
    yield kind
    for subclass in kind.__subclasses__():
        yield from _with_subclasses(subclass)


# What Gloo, NCCL and JAX's coordination service report when they lose a connection. Their status
# codes, as INTERNAL or UNKNOWN, begin the messages of CUDA's and cuDNN's own errors too.
_CONNECTION_LOST = re.compile(
    r'gloo|coordination ?service|heartbeat|barrier|another task|remote process exited'
    r'|nccl.*(network|system) error|failed to connect to all addresses|socket closed'
    r'|connection (reset|closed|refused)',
    re.IGNORECASE | re.DOTALL,
)


def host_lost(error: Exception) -> bool:
    """Whether an error reports that another host of this run is gone."""
    return jax.process_count() > 1 and means_connection_lost(str(error))


def means_connection_lost(message: str) -> bool:
    """Whether an error message of XLA reports a lost connection between hosts."""
    return bool(_CONNECTION_LOST.search(message))


def check_same_on_all_hosts(value: int | None, what: str) -> None:
    """Checks that all hosts have the same non-negative number or None; raises ConfigError."""
    if jax.process_count() == 1:
        return
    values = multihost_utils.process_allgather(np.array(-1 if value is None else value))
    if len(set(values.tolist())) > 1:
        seen = ', '.join('none' if v < 0 else str(v) for v in values.tolist())
        raise ConfigError(f'The hosts disagree on {what}; they see {seen}.')


def data_mesh() -> Mesh:
    """All devices of all hosts on one axis, 'data'."""
    return jax.make_mesh((jax.device_count(),), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def local_mesh() -> Mesh:
    """The devices of this host on one axis, 'data'."""
    devices = jax.local_devices()
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

    The state and the sum are donated.
    """
    # The replication check does not support axis_index_groups, which grouped BatchNorm needs.
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(P(), P(DATA_AXIS)), out_specs=P(), check_vma=False
    )

    def train(state: TrainState, batch: DeviceBatch, total: Metrics) -> tuple[TrainState, Metrics]:
        state, metrics = mapped(state, batch)
        return state, total + metrics

    return jax.jit(train, donate_argnums=(0, 2))


def parallel_eval_step(step: Callable[..., Metrics], mesh: Mesh) -> EvalStepFn:
    """Maps `steps.eval_step` over the mesh and adds its metrics to a running sum, donated."""
    mapped = jax.shard_map(
        step, mesh=mesh, in_specs=(P(), P(DATA_AXIS)), out_specs=P(), check_vma=False
    )

    def evaluate(state: TrainState, batch: DeviceBatch, total: Metrics) -> Metrics:
        return total + mapped(state, batch)

    return jax.jit(evaluate, donate_argnums=2)


def replicated(mesh: Mesh) -> NamedSharding:
    """The sharding of an array that every device of the mesh holds."""
    return NamedSharding(mesh, P())


def to_devices(
    batches: Iterable[Mapping[str, np.ndarray]], mesh: Mesh, prefetch: int = 2
) -> Iterator[DeviceBatch]:
    """Each host's batches as global arrays split over the mesh, `prefetch` ahead of their use."""
    sharding = NamedSharding(mesh, P(DATA_AXIS))
    waiting: deque[DeviceBatch] = deque()
    for batch in batches:
        waiting.append(
            {
                name: jax.make_array_from_process_local_data(sharding, array)
                for name, array in batch.items()
            }
        )
        if len(waiting) > prefetch:
            yield waiting.popleft()
    yield from waiting
