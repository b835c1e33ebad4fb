"""Turns SIGTERM, SIGHUP and Ctrl-C into a request to stop after the current step."""

import os
import signal
import socket
import sys
import threading
from types import TracebackType
from typing import NoReturn

import jax
from jax.experimental import multihost_utils

from ssanet_jax.errors import StoppedError
from ssanet_jax.output import lossy

_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class PreemptionHandler:
    """Context manager that turns signals into a request to stop after the current step.

    SIGTERM, SIGINT and SIGHUP, as of a terminal that is closed; under nohup the last is ignored.
    Before the first step there is nothing to save, and a signal ends the process at once; so does
    a second one later. On several hosts, any of them may get the signal: JAX's preemption service
    lets all agree on a step. A thread listens, so that signals are seen while Python waits for a
    compiled program. In notebooks an interrupt remains a KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self._signal: str | None = None
        self._worth_saving = False
        self._handlers_before: dict[int, object] = {}

    def __enter__(self) -> 'PreemptionHandler':
        in_main = threading.current_thread() is threading.main_thread()
        if not in_main or 'ipykernel' in sys.modules:
            return self
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._fd_before = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            if number == signal.SIGTERM and jax.process_count() > 1:
                continue  # JAX's preemption service waits for it.
            if number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN:
                continue  # nohup
            self._handlers_before[number] = signal.signal(number, lambda *_: None)
        threading.Thread(target=self._listen, name='signals', daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._handlers_before:
            return
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._fd_before)
        self._sender.close()

    def _listen(self) -> None:
        while received := self._receiver.recv(1):
            number = received[0]
            if number not in _SIGNALS:
                continue
            name = signal.Signals(number).name
            if self._signal is not None:
                _exit(f'Second signal ({name}): stopped at once, nothing more saved.', 128 + number)
            self._signal = name
            if not self._worth_saving:
                _exit(
                    f'Stopped by {name} before the first step, with nothing to save. Run the same '
                    'command to start over.',
                    StoppedError.exit_code,
                )
            _print(f'{name}: finishing the step and saving. A second signal stops at once.')
            if jax.process_count() > 1:
                os.kill(os.getpid(), signal.SIGTERM)  # notifies all hosts
        self._receiver.close()

    def begin(self, start: int) -> None:
        """Call it on all hosts before the first step, which follows `start`.

        Raises:
          StoppedError: a host was asked to stop.
        """
        if jax.process_count() == 1:
            return
        # JAX stops one step after the largest that it was asked about; at first it knows of 0.
        if multihost_utils.reached_preemption_sync_point(1):
            raise StoppedError('Stopped before the first step. Run the same command to start over.')
        if start > 1:
            multihost_utils.reached_preemption_sync_point(start)

    def requested(self) -> bool:
        """Whether a signal came and this host is the only one, which may stop between batches."""
        return self._signal is not None and jax.process_count() == 1

    def after(self, step: int) -> bool:
        """Whether to stop after training step `step`; call it once per step, on all hosts."""
        self._worth_saving = True
        if jax.process_count() == 1:
            return self.requested()
        if multihost_utils.reached_preemption_sync_point(step):
            self._signal = self._signal or 'a preemption notice'
            return True
        return False

    def stop(self, step: int, workdir: object) -> NoReturn:
        """Raises StoppedError; call it once the checkpoint of `step` is complete."""
        raise StoppedError(
            f'Stopped by {self._signal} after step {step:,}, which is saved in {workdir}. Run the '
            'same command to resume.'
        )


def _print(text: str) -> None:
    lossy(sys.stderr).write(f'\n{text}\n')


def _exit(text: str, code: int) -> NoReturn:
    _print(text)
    os._exit(code)
