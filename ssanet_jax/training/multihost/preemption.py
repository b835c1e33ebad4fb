"""Turns SIGTERM, Ctrl-C and SIGHUP into a request to stop after the current step."""

import ctypes
import functools
import os
import signal
import sys
import threading
from collections.abc import Callable
from types import TracebackType
from typing import NoReturn

import jax
from jax._src import distributed
from jax.experimental import multihost_utils

from ssanet_jax.errors import StoppedError
from ssanet_jax.output import lossy
from ssanet_jax.runtime import StopSignals
from ssanet_jax.training.multihost import hosts


class PreemptionHandler:
    """Context manager that turns a signal into a request to stop after the current step.

    The signals are SIGTERM, SIGINT and SIGHUP. Before the first step there is nothing to save, and
    a signal ends the run at once; so does a second one later. On several hosts, any of them may get
    the signal: JAX's preemption service lets all agree on a step, and one that ends at once ends
    the others. In notebooks an interrupt remains a KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self._signal: str | None = None
        self._worth_saving = False
        self._signals: StopSignals | None = None
        self._notify_all: Callable[[], None] | None = None

    def __enter__(self) -> 'PreemptionHandler':
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and 'ipykernel' not in sys.modules:
            if jax.process_count() > 1:
                self._notify_all = _preemption_notice()
            self._signals = StopSignals(self._received)
            self._signals.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._signals:
            self._signals.stop()

    def _received(self, number: int) -> None:
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
        if self._notify_all:
            self._notify_all()

    def begin(self, start: int) -> None:
        """Call it on all hosts before the first step, which follows `start`.

        Raises:
          StoppedError: a host was asked to stop.
        """
        if not _is_coordinated():
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
        if not _is_coordinated():
            return self.requested()
        return multihost_utils.reached_preemption_sync_point(step)

    def stop(self, step: int, workdir: object) -> NoReturn:
        """Raises StoppedError; call it once the checkpoint of `step` is complete."""
        cause = self._signal or 'a preemption notice'
        raise StoppedError(
            f'Stopped by {cause} after step {step:,}, which is saved in {workdir}. Run the same '
            'command to resume.'
        )


def _is_coordinated() -> bool:
    """Whether JAX's preemption service runs: on several hosts, if the run handles signals."""
    running = distributed.global_state.preemption_sync_manager is not None
    return jax.process_count() > 1 and running


@functools.cache
def _preemption_notice() -> Callable[[], None]:
    """A function that gives JAX's preemption service notice, as a SIGTERM would.

    The service installs a handler of SIGTERM in C, after which Python sees none, so that a second
    one could not stop the process. Here Python takes the signal back, and calls that handler.
    """
    if distributed.global_state.preemption_sync_manager is None:
        jax.config.update('jax_enable_preemption_service', True)
        distributed.global_state.initialize_preemption_sync_manager()
    libc = ctypes.CDLL(None)
    libc.signal.argtypes, libc.signal.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_void_p
    handler = libc.signal(signal.SIGTERM, 1)  # SIG_IGN, until StopSignals starts
    return functools.partial(ctypes.CFUNCTYPE(None, ctypes.c_int)(handler), signal.SIGTERM)


def _print(text: str) -> None:
    lossy(sys.stderr).write(f'\n{text}\n')


def _exit(text: str, code: int) -> NoReturn:
    hosts.leave(text, code)
    _print(text)
    os._exit(code)
