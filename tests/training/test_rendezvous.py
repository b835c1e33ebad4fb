import contextlib
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from ssanet_jax.errors import ConfigError, HostLostError
from ssanet_jax.training.multihost import rendezvous
from tests.host_processes import free_port


def outcomes(*hosts, timeout=20.0, between=0.0):
    """The errors, or None, of threads that act as hosts (num_processes, process_id)."""
    address = f'127.0.0.1:{free_port()}'

    def meet(host):
        try:
            rendezvous.meet(address, *host, timeout)
        except (ConfigError, HostLostError) as error:
            return error

    with ThreadPoolExecutor(len(hosts)) as pool:
        waiting = []
        for host in hosts:
            waiting.append(pool.submit(meet, host))
            time.sleep(between)
        return [result.result() for result in waiting]


def assert_one_reason(errors, kind, reason):
    assert {type(error) for error in errors} == {kind}
    assert {str(error) for error in errors} == {reason}


@pytest.mark.parametrize('order', [[0, 1, 2], [2, 1, 0]])
def test_hosts_meet_in_any_order(order, monkeypatch):
    monkeypatch.setattr(rendezvous, '_RETRY_S', 0.05)
    assert outcomes(*[(3, host) for host in order], between=0.1) == [None] * 3


@pytest.mark.parametrize('first', [2, 3])
def test_hosts_that_expect_different_numbers_are_all_refused(first, monkeypatch):
    monkeypatch.setattr(rendezvous, '_REFUSAL_S', 0.2)
    assert_one_reason(
        outcomes((first, 0), (5 - first, 1)),
        ConfigError,
        f'The hosts disagree: --num_processes is {first} on host 0 and {5 - first} on host 1. '
        'Start every host with the same number.',
    )


def test_a_host_that_comes_after_a_refusal_is_told_too():
    first, *others = outcomes((4, 0), (5, 3), (4, 1), (4, 2), between=0.1)
    assert str(first).startswith('The hosts disagree: --num_processes is 4 on host 0 and 5 on host')
    assert_one_reason(others, ConfigError, str(first))


def test_two_hosts_of_one_number_are_all_refused(monkeypatch):
    monkeypatch.setattr(rendezvous, '_REFUSAL_S', 0.2)
    assert_one_reason(
        outcomes((3, 0), (3, 1), (3, 1)),
        ConfigError,
        'Two hosts have --process_id=1; give each its own, from 0 to 2.',
    )


def test_hosts_name_one_that_is_missing():
    assert_one_reason(
        outcomes((4, 0), (4, 2), timeout=1),
        HostLostError,
        'Waited 1 s for the hosts with --process_id 1, 3, which did not start. Start all hosts '
        'with the same --coordinator_address; their own logs say why one has not.',
    )


def test_a_host_gives_up_on_a_first_host_that_is_missing():
    (error,) = outcomes((2, 1), timeout=0.3)
    assert isinstance(error, HostLostError)
    assert 'for the first host at 127.0.0.1:' in str(error)
    assert 'Connection refused' in str(error)


@pytest.mark.parametrize('options', [(), (socket.SO_REUSEPORT,)], ids=['plain', 'as gRPC'])
def test_a_port_that_is_taken_is_one_line(options):
    with socket.socket() as taken:
        for option in options:
            taken.setsockopt(socket.SOL_SOCKET, option, 1)
        taken.bind(('0.0.0.0', 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f'port {port} cannot be opened here: Address alre'):
            rendezvous.meet(f'127.0.0.1:{port}', 2, 0, 5)


@pytest.mark.parametrize('address', ['host', 'host:', ':8476', 'host:0', 'host:65536', 'host:http'])
def test_an_address_without_a_port_is_refused(address):
    with pytest.raises(ConfigError, match=f'--coordinator_address={address} is not HOST:PORT'):
        rendezvous.meet(address, 2, 0, 5)


def test_other_clients_of_the_port_are_ignored_and_a_host_may_be_restarted():
    port = free_port()
    first = threading.Thread(target=rendezvous.meet, args=(f'127.0.0.1:{port}', 3, 0, 20))
    first.start()

    def send(text):
        while True:
            with contextlib.suppress(ConnectionRefusedError):
                connection = socket.create_connection(('127.0.0.1', port))
                connection.sendall(text)
                return connection

    for text in (b'GET / HTTP/1.1\n', b'\xff\n', b'[]\n', b'{"process_id": null}\n'):
        with send(text) as connection:
            assert connection.recv(100) == b''
    send(b'{"process_id": 1, "num_processes": 3}\n').close()  # killed while it waits
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda host: rendezvous.meet(f'127.0.0.1:{port}', 3, host, 20), (1, 2)))
    first.join()


def test_a_host_waits_for_the_first_to_be_replaced(monkeypatch):
    """The port still belongs to a program that does not know the protocol."""
    monkeypatch.setattr(rendezvous, '_RETRY_S', 0.05)
    port = free_port()
    with socket.create_server(('127.0.0.1', port)) as old, ThreadPoolExecutor(1) as pool:
        second = pool.submit(rendezvous.meet, f'127.0.0.1:{port}', 2, 1, 20)
        connection, _ = old.accept()
        with connection:
            connection.sendall(b'\x00\x00\x12\x04\xff\n')
        old.close()
        rendezvous.meet(f'127.0.0.1:{port}', 2, 0, 20)
        assert second.result() is None
