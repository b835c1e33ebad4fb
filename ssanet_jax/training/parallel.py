"""Data parallelism: a mesh of one axis, steps mapped over it, batches split along it."""

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
from ssanet_jax.training.steps import DATA_AXIS, DeviceBatch
from ssanet_jax.training.train_state import TrainState

T = TypeVar('T')

_PATIENCE = 40  # seconds after which a host of which nothing was heard is given up
_MESSAGE_BYTES = 1000
_TOLD: tuple[type[Exception], ...] = (ConfigError, RunError, *RunError.__subclasses__())

TrainStepFn = Callable[[TrainState, DeviceBatch, Metrics], tuple[TrainState, Metrics]]
EvalStepFn = Callable[[TrainState, DeviceBatch, Metrics], Metrics]


def initialize_hosts(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Connects the hosts of a run; call it before anything else touches a device.

    With no argument, TPU pods, SLURM and the other clusters that `jax.distributed` knows
    are found by themselves, and anything else is one host.

    Raises:
      ConfigError: only some of the arguments are given, or they contradict each other.
    """
    given = [coordinator_address, num_processes, process_id]
    if num_processes is not None and process_id is not None and process_id >= num_processes:
        raise ConfigError(
            f'--process_id={process_id} is not below --num_processes={num_processes}; '
            'hosts count from 0.'
        )
    if None not in given:
        jax.distributed.initialize(
            coordinator_address, num_processes, process_id, heartbeat_timeout_seconds=_PATIENCE
        )
    elif any(value is not None for value in given):
        raise ConfigError(
            '--coordinator_address, --num_processes and --process_id belong together; got '
            f'{coordinator_address}, {num_processes} and {process_id}. Give all three or none.'
        )
    else:
        try:
            jax.distributed.initialize(heartbeat_timeout_seconds=_PATIENCE)
        except ValueError as error:
            if 'coordinator_address' not in str(error):  # which it asks for outside a cluster
                raise


def together(attempt: Callable[[], T]) -> T:
    """What `attempt` returns; if it raises ConfigError or a RunError on one host, all hosts do.

    Hosts wait here for each other. An error of one alone would leave the others waiting for it.
    """
    if jax.process_count() == 1:
        return attempt()
    result, message = None, b''
    try:
        result = attempt()
    except _TOLD as error:
        message = f'{type(error).__name__}:{error}'.encode()[:_MESSAGE_BYTES]
    padded = np.frombuffer(message.ljust(_MESSAGE_BYTES, b'\0'), np.uint8)
    for host, received in enumerate(multihost_utils.process_allgather(padded)):
        text = received.tobytes().rstrip(b'\0').decode(errors='ignore')
        if text:
            kind, _, reason = text.partition(':')
            raise {error.__name__: error for error in _TOLD}[kind](f'Host {host}: {reason}')
    return cast(T, result)


# How XLA's errors begin where a connection is gone; some are ValueErrors.
_CONNECTION = re.compile('(UNKNOWN|UNAVAILABLE|INTERNAL|ABORTED|CANCELLED|DEADLINE_EXCEEDED): ')


def host_lost(error: Exception) -> bool:
    """Whether an error tells that another host is gone."""
    return jax.process_count() > 1 and bool(_CONNECTION.match(str(error)))


def check_same_on_all_hosts(value: int | None, what: str) -> None:
    """Checks that all hosts have the same non-negative number or None; raises ConfigError."""
    if jax.process_count() == 1:
        return
    values = multihost_utils.process_allgather(np.array(-1 if value is None else value))
    if len(set(values.tolist())) > 1:
        seen = ', '.join('none' if v < 0 else str(v) for v in values.tolist())
        raise ConfigError(f'The hosts do not agree on {what}; they see {seen}.')


def data_mesh() -> Mesh:
    """All devices of all hosts in one axis."""
    return jax.make_mesh((jax.device_count(),), (DATA_AXIS,), axis_types=(AxisType.Auto,))


def local_mesh() -> Mesh:
    """The devices of this host in one axis."""
    devices = jax.local_devices()
    return jax.make_mesh(
        (len(devices),), (DATA_AXIS,), axis_types=(AxisType.Auto,), devices=devices
    )


def batch_norm_axis(devices_sharing: int) -> dict[str, Any]:
    """Flax BatchNorm's arguments for statistics over so many devices; 1: local, -1: all."""
    if devices_sharing == 1:
        return {}
    if devices_sharing in (-1, jax.device_count()):
        return {'axis_name': DATA_AXIS}
    groups = np.arange(jax.device_count()).reshape(-1, devices_sharing)
    return {'axis_name': DATA_AXIS, 'axis_index_groups': groups.tolist()}


def parallel_train_step(step: Callable[..., Any], mesh: Mesh) -> TrainStepFn:
    """Maps `steps.train_step` over the mesh and adds its metrics to a running sum.

    The state and the sum are donated.
    """
    # The replication check knows no axis_index_groups, which grouped BatchNorm needs.
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
    return NamedSharding(mesh, P())


def to_devices(
    batches: Iterable[Mapping[str, np.ndarray]], mesh: Mesh, ahead: int = 2
) -> Iterator[DeviceBatch]:
    """Each host's batches as global arrays split over the mesh, `ahead` of their use."""
    sharding = NamedSharding(mesh, P(DATA_AXIS))
    waiting: deque[DeviceBatch] = deque()
    for batch in batches:
        waiting.append(
            {
                name: jax.make_array_from_process_local_data(sharding, array)
                for name, array in batch.items()
            }
        )
        if len(waiting) > ahead:
            yield waiting.popleft()
    yield from waiting
