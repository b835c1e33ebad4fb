import pytest

from ssanet_jax.errors import ConfigError, RunError
from ssanet_jax.training.multihost import hosts


@pytest.mark.parametrize(
    'message',
    [
        'UNKNOWN: Gloo all-reduce failed: [external/gloo/gloo/transport/tcp/pair.cc:547] '
        'Connection closed by peer [127.0.0.1]:42301',
        'UNAVAILABLE: The following tasks are unhealthy (stopped sending heartbeats): task:1',
        'DEADLINE_EXCEEDED: Barrier timed out. Id: PreemptionSync',
        'INTERNAL: NCCL operation ncclAllReduce failed: remote process exited or there '
        'was a network error.',
    ],
)
def test_a_lost_connection_is_recognized(message):
    assert hosts.means_connection_lost(message)


@pytest.mark.parametrize(
    'message',
    [
        'INTERNAL: Failed to synchronize: CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access',
        'UNKNOWN: CUDNN_STATUS_EXECUTION_FAILED in cudnn_frontend_graph',
        'INTERNAL: NCCL operation ncclAllReduce failed: unhandled cuda error',
        'RESOURCE_EXHAUSTED: Out of memory while trying to allocate 68719476736 bytes.',
    ],
)
def test_an_error_of_this_device_is_not_taken_for_a_lost_host(message):
    assert not hosts.means_connection_lost(message)


def refuse(message, with_detection):
    """A stand-in for `jax.distributed.initialize` that fails; the message depends on detection."""

    def initialize(*, cluster_detection_method=None, **_):
        raise ValueError(message if cluster_detection_method else with_detection)

    return initialize


def test_a_single_host_starts_whatever_the_words_of_jax(monkeypatch):
    monkeypatch.delenv('JAX_COORDINATOR_ADDRESS', raising=False)
    monkeypatch.setattr(hosts.jax.distributed, 'initialize', refuse('none found', 'none found'))
    hosts.connect(None, None, None)
    broken = refuse('none found', "invalid literal for int(): '4(x2)'")
    monkeypatch.setattr(hosts.jax.distributed, 'initialize', broken)
    with pytest.raises(ValueError, match='invalid literal'):
        hosts.connect(None, None, None)


def no_metadata_server(**_):
    raise ConnectionError('Failed to resolve metadata.google.internal')


@pytest.mark.parametrize(
    ('num_processes', 'environment'),
    [
        (1, {}),
        (None, {'TPU_WORKER_HOSTNAMES': 'localhost'}),
        (None, {'TPU_PROCESS_ADDRESSES': 'localhost:8471', 'TPU_WORKER_HOSTNAMES': ''}),
    ],
    ids=['asked for', 'Colab', 'one process'],
)
def test_a_single_host_needs_no_metadata_server(num_processes, environment, monkeypatch):
    monkeypatch.setattr(hosts.jax.distributed, 'initialize', no_metadata_server)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    hosts.connect(None, num_processes, None)
    assert not hosts.several()


@pytest.mark.parametrize(
    'environment',
    [
        {'TPU_WORKER_HOSTNAMES': 'a,b'},
        {'TPU_WORKER_HOSTNAMES': 'a', 'MEGASCALE_COORDINATOR_ADDRESS': 'b'},
    ],
    ids=['several hosts', 'several slices'],
)
def test_a_cluster_that_cannot_be_detected_names_the_flag_of_a_single_machine(
    environment, monkeypatch
):
    monkeypatch.setattr(hosts.jax.distributed, 'initialize', no_metadata_server)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(RunError, match=r'metadata\.google\.internal.*--num_processes=1'):
        hosts.connect(None, None, None)


@pytest.mark.parametrize(
    ('arguments', 'reason'),
    [
        (('host:1', 2, 2), '--process_id=2 is not below --num_processes=2'),
        (('host:1', 2, None), '--coordinator_address, --num_processes and --process_id belong'),
        (('host', 2, 0), '--coordinator_address=host is not HOST:PORT'),
    ],
)
def test_arguments_that_do_not_fit_are_refused(arguments, reason):
    with pytest.raises(ConfigError, match=reason):
        hosts.connect(*arguments)


def test_a_single_host_exchanges_with_itself_and_waits_for_nobody():
    assert not hosts.several()
    assert hosts.exchange({'a': 1}, 'anything') == [{'a': 1}]
    assert hosts.raise_on_all_hosts(lambda: 3, 'anything') == 3
    hosts.leave('nothing happens', 5)
