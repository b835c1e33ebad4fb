"""Signals that ask a run to stop: it saves first."""

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

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


class PreemptionHandler:
    """While it is entered, SIGTERM and SIGINT (Ctrl-C) are noticed instead of obeyed.

    Before the first step there is nothing to save, and a signal ends the process at once; so does
    a second one later. Of several hosts any may be told: JAX's preemption service lets all agree
    on a step. Signals that arrive while Python waits for a compiled program are seen too, since a
    thread listens. In notebooks an interrupt stays what it was, a KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self._name: str | None = None  # of the signal that came
        self._worth_saving = False
        self._before: dict[int, object] = {}

    def __enter__(self) -> 'PreemptionHandler':
        in_main = threading.current_thread() is threading.main_thread()
        if not in_main or 'ipykernel' in sys.modules:
            return self
        self._ear, mouth = socket.socketpair()
        mouth.setblocking(False)
        self._mouth = mouth
        self._fd_before = signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
        for number in _SIGNALS:
            if number == signal.SIGTERM and jax.process_count() > 1:
                continue  # JAX's preemption service waits for it.
            self._before[number] = signal.signal(number, lambda *_: None)
        threading.Thread(target=self._listen, name='signals', daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if not self._before:
            return
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        signal.set_wakeup_fd(self._fd_before)
        self._mouth.close()

    def _listen(self) -> None:
        while received := self._ear.recv(1):
            number = received[0]
            if number not in _SIGNALS:
                continue
            name = signal.Signals(number).name
            if self._name is not None:
                _leave(
                    f'Second signal ({name}): stopped at once, nothing more saved.', 128 + number
                )
            self._name = name
            if not self._worth_saving:
                _leave(
                    f'Stopped by {name} before the first step, with nothing to save. Run the same '
                    'command to begin again.',
                    StoppedError.exit_code,
                )
            _say(f'{name}: finishing the step and saving. Once more stops at once.')
            if jax.process_count() > 1:
                os.kill(os.getpid(), signal.SIGTERM)  # tells all hosts
        self._ear.close()

    def begin(self, start: int) -> None:
        """Call it before the first step, which follows `start`, on all hosts."""
        if jax.process_count() == 1:
            return
        # JAX stops at the largest step that it was asked for, and one; at first it knows of 0.
        if multihost_utils.reached_preemption_sync_point(1):
            raise StoppedError(
                'Stopped before the first step. Run the same command to begin again.'
            )
        if start > 1:
            multihost_utils.reached_preemption_sync_point(start)

    def _requested(self) -> bool:
        return self._name is not None and jax.process_count() == 1

    def after(self, step: int) -> bool:
        """Whether to stop after training step `step`; call it once a step, on all hosts."""
        self._worth_saving = True
        if jax.process_count() == 1:
            return self._requested()
        if multihost_utils.reached_preemption_sync_point(step):
            self._name = self._name or 'a preemption notice'
            return True
        return False

    def check(self, step: int, workdir: object) -> None:
        """Raises StoppedError if this host is the only one and a signal came; `step` is saved."""
        if self._requested():
            self.stop(step, workdir)

    def stop(self, step: int, workdir: object) -> NoReturn:
        raise StoppedError(
            f'Stopped by {self._name} after step {step:,}, which is saved in {workdir}. Run the '
            'same command to go on.'
        )


def _say(text: str) -> None:
    print(f'\n{text}', file=sys.stderr, flush=True)


def _leave(text: str, code: int) -> None:
    _say(text)
    os._exit(code)
