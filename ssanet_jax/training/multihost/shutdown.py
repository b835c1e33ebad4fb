"""Coordinated shutdown: all hosts of a run exit with one reason and code."""

import atexit
import json
import os
import threading
import time
from typing import Any, NoReturn

import jax

from ssanet_jax.output import print_error

_POLL_S = 0.5
_ANSWER_TIMEOUT_S = 5  # for the coordinator, which may be gone
_GRACE_S = 5  # for this host to end by itself, as where all raise the same error
_ACK_TIMEOUT_S = 15  # for the other hosts to end
_KEY = 'ssanet_jax/shutdown'
_ACKS = 'ssanet_jax/shutdown_acks'


class CoordinatedShutdown:
    """Tells the other hosts why this one ends, and ends this process when another one does.

    JAX's runtime notices a host that is gone after its heartbeat times out, knows no reason, and
    aborts the process as soon as the first host is gone. So the first to leave writes its reason
    into JAX's key-value store, where a thread of each host looks for one, and hosts leave once all
    have read it. Until then they may be anywhere: in a step, at a barrier, in a save.

    Args:
      client: of JAX's distributed service.
      process_id: of this host.
      num_processes: number of hosts.
    """

    def __init__(self, client: Any, process_id: int, num_processes: int):
        self._client = client
        self._process_id = process_id
        self._num_processes = num_processes
        self._leaving = threading.Lock()  # never released
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name='hosts', daemon=True)
        self._thread.start()
        atexit.register(self._close)

    def leave(self, reason: str, code: int) -> NoReturn:
        """Prints the reason, ends this process with `code`, and the other hosts too.

        If another host has given a reason and code before, they are used instead.
        """
        self._leaving.acquire()
        said = {'host': self._process_id, 'reason': reason, 'code': code}
        answers: list[dict[str, Any]] = []

        def publish() -> None:
            try:
                self._client.key_value_set(_KEY, json.dumps(said))
                answers.append(said)
            except jax.errors.JaxRuntimeError:  # another host was first, or the coordinator is gone
                answers.append(self._read() or said)

        publishing = threading.Thread(target=publish, daemon=True)
        publishing.start()
        publishing.join(_ANSWER_TIMEOUT_S)
        self._end(answers[0] if answers else said)

    def _watch(self) -> None:
        while not self._closed.wait(_POLL_S):
            if (said := self._read()) and not self._closed.wait(_GRACE_S):
                self._leaving.acquire()
                self._end(said)

    def _read(self) -> dict[str, Any] | None:
        try:
            return dict(json.loads(self._client.key_value_try_get(_KEY)))
        except jax.errors.JaxRuntimeError:  # nothing yet, or the coordinator is gone
            return None

    def _end(self, said: dict[str, Any]) -> NoReturn:
        named = (
            said['reason'].startswith(('Host ', 'The hosts ')) or said['host'] == self._process_id
        )
        print_error(said['reason'] if named else f'Host {said["host"]}: {said["reason"]}')
        acknowledging = threading.Thread(target=self._acknowledge, daemon=True)
        acknowledging.start()
        acknowledging.join(_ACK_TIMEOUT_S)
        if self._process_id == 0:  # JAX aborts the other processes when the first one is gone.
            time.sleep(1)
        os._exit(said['code'])

    def _acknowledge(self) -> None:
        try:
            self._client.key_value_set(f'{_ACKS}/{self._process_id}', '')
            while len(self._client.key_value_dir_get(_ACKS)) < self._num_processes:
                time.sleep(0.05)
        except jax.errors.JaxRuntimeError:  # the coordinator is gone
            pass

    def _close(self) -> None:
        """Stops the thread before the interpreter ends, which would abort in a call of JAX's."""
        if jax.distributed.is_initialized():
            jax.distributed.shutdown()
        self._closed.set()
        self._thread.join(_ANSWER_TIMEOUT_S)
