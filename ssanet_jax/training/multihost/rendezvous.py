"""Hosts check in with the first one before JAX connects them.

JAX's coordination service aborts the process if its port is taken or a host is missing, does not
notice that hosts expect different numbers of hosts, and exchanges nothing before all are there.
Here each host sends one line of JSON to the coordinator's address and waits for one line back.
"""

import contextlib
import json
import os
import select
import socket
import time
from typing import Any

from ssanet_jax.errors import ConfigError, HostLostError

_LINE = 4096  # bytes at most
_HELLO_TIMEOUT_S = 5.0
_REFUSAL_S = 20.0
_RETRY_S = 0.5


def meet(address: str, num_processes: int, process_id: int, timeout: float) -> None:
    """Returns once all hosts are there and expect the same number of hosts.

    Args:
      address: 'host:port' of the first host, where JAX's coordinator will listen.
      num_processes: number of hosts.
      process_id: of this host, from 0.
      timeout: seconds to wait for the others.

    Raises:
      ConfigError: the address has no port, the port is taken, or the hosts disagree.
      HostLostError: a host is missing.
    """
    host, _, port = address.rpartition(':')
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(
            f'--coordinator_address={address} is not HOST:PORT, as 10.0.0.1:8476; give the '
            'address of the first host and a free port of it.'
        )
    deadline = time.monotonic() + timeout
    if process_id == 0:
        _Registry(num_processes).fill(int(port), deadline, timeout)
    else:
        place = (host.strip('[]'), int(port))
        hello = {'process_id': process_id, 'num_processes': num_processes}
        if refusal := _check_in(place, hello, deadline, timeout):
            raise _ERRORS[refusal['error']](refusal['reason'])


_ERRORS = {kind.__name__: kind for kind in (ConfigError, HostLostError)}


class _Registry:
    """The hosts that have checked in with the first one, and their open connections."""

    def __init__(self, num_processes: int):
        self._num_processes = num_processes
        self.refusal: ConfigError | None = None
        self._connections: dict[int, socket.socket] = {}

    def fill(self, port: int, deadline: float, timeout: float) -> None:
        """Waits for all other hosts and answers all of them; raises as `meet`."""
        answer: dict[str, Any] = {}
        try:
            with _listen(port) as server:
                self._accept(server, deadline, timeout)
        except (ConfigError, HostLostError) as error:
            answer = {'error': type(error).__name__, 'reason': str(error)}
            raise
        finally:
            for connection in self._connections.values():
                with connection, contextlib.suppress(OSError):
                    connection.sendall(_line(answer))

    def _accept(self, server: socket.socket, deadline: float, timeout: float) -> None:
        while missing := set(range(1, self._num_processes)) - self._alive():
            server.settimeout(max(deadline - time.monotonic(), 0.001))
            try:
                connection, _ = server.accept()
            except TimeoutError as error:
                if self.refusal:
                    break
                raise HostLostError(
                    f'Waited {timeout:.0f} s for the hosts with --process_id '
                    f'{", ".join(map(str, sorted(missing)))}, which did not start. Start all hosts '
                    'with the same --coordinator_address; their own logs say why one has not.'
                ) from error
            if hello := _hello(connection):
                self._register(connection, *hello)
            else:  # something else that looks at open ports
                connection.close()
            if self.refusal:  # wait for the other hosts a little, to tell them too
                deadline = min(deadline, time.monotonic() + _REFUSAL_S)
        if self.refusal:
            raise self.refusal

    def _alive(self) -> set[int]:
        """The hosts whose connection is open; a host that was restarted may check in again."""
        ended, _, _ = select.select(list(self._connections.values()), [], [], 0)
        for process_id, connection in list(self._connections.items()):
            if connection in ended:
                self._connections.pop(process_id).close()
        return set(self._connections)

    def _register(self, connection: socket.socket, process_id: int, num_processes: int) -> None:
        twice = process_id == 0 or process_id in self._alive()
        self._connections[-process_id if twice else process_id] = connection
        if num_processes != self._num_processes:
            self.refusal = ConfigError(
                f'The hosts disagree: --num_processes is {self._num_processes} on host 0 and '
                f'{num_processes} on host {process_id}. Start every host with the same number.'
            )
        elif twice:
            self.refusal = ConfigError(
                f'Two hosts have --process_id={process_id}; give each its own, from 0 to '
                f'{num_processes - 1}.'
            )


def _listen(port: int) -> socket.socket:
    both = socket.has_dualstack_ipv6()
    try:
        return socket.create_server(
            ('', port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both
        )
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise ConfigError(
            f'--coordinator_address: port {port} cannot be opened here: {reason}. Stop the program '
            'that uses it, or choose another port for all hosts.'
        ) from error


def _hello(connection: socket.socket) -> tuple[int, int] | None:
    """(process_id, num_processes) of a host, or None for any other client."""
    connection.settimeout(_HELLO_TIMEOUT_S)
    try:
        hello = _read(connection)
        return int(hello['process_id']), int(hello['num_processes'])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _check_in(
    place: tuple[str, int], hello: dict[str, int], deadline: float, timeout: float
) -> dict[str, str]:
    """Checks in with the first host, as often as it takes; returns {} or what it refuses."""
    while True:
        try:
            with socket.create_connection(place, timeout=_HELLO_TIMEOUT_S) as connection:
                connection.sendall(_line(hello))
                # The first host may have started later; it answers when its own time is over.
                connection.settimeout(timeout + _HELLO_TIMEOUT_S)
                return dict(_read(connection))
        except (OSError, ValueError, TypeError) as error:
            if time.monotonic() > deadline:
                raise HostLostError(
                    f'Waited {timeout:.0f} s for the first host at {place[0]}:{place[1]}: '
                    f'{error or type(error).__name__}. Start it, or correct --coordinator_address.'
                ) from error
        time.sleep(_RETRY_S)


def _line(value: dict[str, Any]) -> bytes:
    return json.dumps(value).encode() + b'\n'


def _read(connection: socket.socket) -> Any:
    with connection.makefile('rb') as file:
        return json.loads(file.readline(_LINE))
