"""Hosts of a run: connect them, exchange values, raise errors on all, end together."""

import itertools
import json
import os
import re
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar, cast

import jax
from jax._src import distributed  # the only way to JAX's key-value store and barriers

from ssanet_jax.errors import ConfigError, HostLostError, RunError, one_line
from ssanet_jax.output import print_error
from ssanet_jax.training.multihost import rendezvous
from ssanet_jax.training.multihost.shutdown import CoordinatedShutdown

T = TypeVar('T')

CONNECT_TIMEOUT_S = 300  # for all hosts to start
WAIT_TIMEOUT_S = 600  # for the slowest host, outside of steps
HEARTBEAT_TIMEOUT_S = 40  # JAX's default of 100 s leaves the other hosts idle for longer

_exchanges = itertools.count()
_shutdown: CoordinatedShutdown | None = None


def connect(
    coordinator_address: str | None, num_processes: int | None, process_id: int | None
) -> None:
    """Connects the hosts of a run; call it before anything else touches a device.

    Without arguments, `jax.distributed` detects TPU pods, SLURM and other clusters; anything else
    is a single host, as is `num_processes=1` alone. From here on, a host that leaves through
    `leave` ends the others too.

    Raises:
      ConfigError: only some of the arguments are given, they contradict each other or those of
        another host, or the coordinator's port is taken.
      HostLostError: a host did not start in time.
      RunError: the service that describes the cluster does not answer.
    """
    arguments = (coordinator_address, num_processes, process_id)
    if arguments == (None, 1, None):
        return
    if num_processes is not None and process_id is not None and process_id >= num_processes:
        raise ConfigError(
            f'--process_id={process_id} is not below --num_processes={num_processes}; '
            'hosts count from 0.'
        )
    if None not in arguments:
        rendezvous.meet(*cast(tuple[str, int, int], arguments), CONNECT_TIMEOUT_S)
        _initialize(
            coordinator_address=coordinator_address,
            num_processes=num_processes,
            process_id=process_id,
        )
    elif any(value is not None for value in arguments):
        raise ConfigError(
            '--coordinator_address, --num_processes and --process_id belong together; got '
            f'{coordinator_address}, {num_processes} and {process_id}. Give all three or none, or '
            '--num_processes=1 alone on a single machine.'
        )
    else:
        _detect()
    if several():
        global _shutdown
        _shutdown = CoordinatedShutdown(_client(), distributed.global_state.process_id, count())


def _detect() -> None:
    """Connects the hosts of a cluster that JAX detects, if there is one."""
    try:
        _initialize()
    except OSError as error:
        if not _is_single_tpu_host():
            raise RunError(
                f'JAX cannot detect the hosts of this run: {one_line(error)}. On a single machine, '
                'add --num_processes=1.'
            ) from error
    except ValueError as error:
        if not _means_no_cluster(error):
            raise


def _initialize(**arguments: Any) -> None:
    # The preemption service would replace the handler of SIGTERM: PreemptionHandler starts it.
    jax.config.update('jax_enable_preemption_service', False)
    late = threading.Timer(CONNECT_TIMEOUT_S, _give_up)  # JAX itself would abort the process
    late.daemon = True
    late.start()
    try:
        jax.distributed.initialize(
            initialization_timeout=2 * CONNECT_TIMEOUT_S,
            heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT_S,
            **arguments,
        )
    finally:
        late.cancel()


def _give_up() -> None:
    state = distributed.global_state
    print_error(
        f'Waited {CONNECT_TIMEOUT_S} s for all hosts to connect to {state.coordinator_address}. '
        'The logs of the others say why one did not; start all hosts again.'
    )
    os._exit(HostLostError.exit_code)


def _is_single_tpu_host() -> bool:
    """Whether the environment lists one TPU host, as on Colab, where no service describes it."""
    names = [os.environ.get(name) for name in ('TPU_PROCESS_ADDRESSES', 'TPU_WORKER_HOSTNAMES')]
    listed = next(filter(None, names), '')
    return bool(listed) and ',' not in listed and 'MEGASCALE_COORDINATOR_ADDRESS' not in os.environ


def _means_no_cluster(error: ValueError) -> bool:
    """Whether JAX reports the same with its detection of clusters turned off."""
    if 'JAX_COORDINATOR_ADDRESS' in os.environ:
        return False
    try:
        jax.distributed.initialize(cluster_detection_method='deactivate')
    except ValueError as without_detection:
        return str(error) == str(without_detection)
    return False


def several() -> bool:
    """Whether JAX's distributed service connects several hosts; touches no device."""
    return distributed.global_state.client is not None and count() > 1


def count() -> int:
    """The number of hosts that JAX's distributed service connects; touches no device."""
    return int(distributed.global_state.num_processes)


def _client() -> Any:
    return distributed.global_state.client


def exchange(value: Any, what: str) -> list[Any]:
    """Returns the value of each host, in their order; values are JSON.

    All hosts must call it, in the same order.

    Args:
      value: of this host.
      what: the hosts wait for, in words.

    Raises:
      HostLostError: a host did not come to this point in time.
    """
    if not several():
        return [value]
    client, number = _client(), distributed.global_state.process_id
    folder = f'ssanet_jax/exchange/{next(_exchanges)}'
    client.key_value_set(f'{folder}/{number}', json.dumps(value))
    try:
        client.wait_at_barrier(folder, round(WAIT_TIMEOUT_S * 1000))
    except jax.errors.JaxRuntimeError as error:
        if 'DEADLINE_EXCEEDED' not in str(error):
            raise
        missing = sorted(set(range(count())) - _received(folder).keys())
        raise HostLostError(
            f'Waited {WAIT_TIMEOUT_S:.0f} s for {what} of host {", ".join(map(str, missing))}. Its '
            'own log says what it was doing; start all hosts again with the same command.'
        ) from error
    received = _received(folder)
    return [received[host] for host in range(count())]


def _received(folder: str) -> dict[int, Any]:
    entries = _client().key_value_dir_get(folder)
    return {int(key.rpartition('/')[2]): json.loads(text) for key, text in entries}


def raise_on_all_hosts(attempt: Callable[[], T], what: str) -> T:
    """Returns `attempt()`; if it raises ConfigError or RunError on one host, all hosts raise it.

    Hosts wait here for each other, for `what` in words: an error on one alone would leave the
    others waiting for it.
    """
    if not several():
        return attempt()
    result, failure = None, None
    try:
        result = attempt()
    except (ConfigError, RunError) as error:
        failure = [type(error).__name__, str(error)]
    for host, failed in enumerate(exchange(failure, what)):
        if failed:
            name, reason = failed
            raise _kinds().get(name, RunError)(f'Host {host}: {reason}')
    return cast(T, result)


def _kinds() -> dict[str, type[Exception]]:
    def with_subclasses(kind: type[Exception]) -> Iterator[type[Exception]]:
        yield kind
        for subclass in kind.__subclasses__():
            yield from with_subclasses(subclass)

    bases = (ConfigError, RunError)
    return {kind.__name__: kind for base in bases for kind in with_subclasses(base)}


def leave(reason: str, code: int) -> None:
    """Ends all hosts that `connect` connected with one reason; returns on a single host."""
    if _shutdown:
        _shutdown.leave(reason, code)


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
    return several() and means_connection_lost(str(error))


def means_connection_lost(message: str) -> bool:
    """Whether an error message of XLA reports a lost connection between hosts."""
    return bool(_CONNECTION_LOST.search(message))
