"""Process-wide settings: devices, TensorFlow, the cache of compiled programs, stop signals."""

import functools
import hashlib
import logging
import os
import platform
import signal
import socket
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jax

from ssanet_jax.errors import ConfigError, one_line


def use_cpu() -> None:
    """Makes JAX compute on the CPU, whatever JAX_PLATFORMS says, for commands that need no more.

    Accelerators may be missing, or in use by a run.
    """
    os.environ['JAX_PLATFORMS'] = 'cpu'
    jax.config.update('jax_platforms', 'cpu')  # the package has imported JAX, which read it


def cpu_device() -> jax.Device:
    """The CPU as a device of JAX; raises ConfigError if JAX_PLATFORMS leaves it out."""
    try:
        return jax.local_devices(backend='cpu')[0]
    except (AssertionError, RuntimeError) as error:
        platforms = os.environ.get('JAX_PLATFORMS') or 'cpu'
        if 'cpu' in platforms.split(','):
            raise ConfigError(missing_device() or one_line(error)) from error
        raise ConfigError(
            f'JAX_PLATFORMS={platforms} leaves out the CPU, which this needs; '
            f'set JAX_PLATFORMS={platforms},cpu.'
        ) from error


def missing_device() -> str | None:
    """Why JAX cannot use the device that JAX_PLATFORMS names first; None if it can, or is not set.

    Without NVIDIA's driver, JAX takes the next one of cuda,cpu in silence.
    """
    platforms = os.environ.get('JAX_PLATFORMS')  # on a TPU VM, JAX sets its own option
    if not platforms:
        return None
    try:
        if jax.devices()[0].platform != 'cpu' or platforms.startswith('cpu'):
            return None
        reason = ''
    except (AssertionError, RuntimeError) as error:
        reason = one_line(error).partition(' (set JAX_PLATFORMS')[0].rstrip('.')
    return (
        f'JAX_PLATFORMS={platforms}: JAX has no such device here'
        f'{reason and f" ({reason})"}. Unset it to take what there is, set it to cpu, or '
        "install JAX for the device, as pip install 'jax[cuda13]'."
    )


def load_tensorflow(use: str) -> None:
    """Imports TensorFlow silently, and leaves GPUs to JAX.

    Args:
      use: what needs it, for the message.

    Raises:
      ConfigError: it is not installed.
    """
    # Importing JAX sets another level. The readers report unreadable files themselves.
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')
    logging.getLogger('tensorflow').setLevel(logging.ERROR)
    try:
        import tensorflow as tf
    except ModuleNotFoundError as error:
        if error.name != 'tensorflow':
            raise
        raise ConfigError(
            f"{use} needs TensorFlow: pip install 'ssanet-jax[tensorflow]'"
        ) from error
    tf.config.set_visible_devices([], 'GPU')


def enable_compilation_cache() -> Path | None:
    """Caches programs that take a second or more to compile, up to 4 GiB in the user's cache.

    JAX_ENABLE_COMPILATION_CACHE=false turns it off, and JAX_COMPILATION_CACHE_DIR chooses another
    folder. Several hosts have no cache unless that variable names a folder shared by all of them,
    since JAX writes on the first host only.

    Returns:
      The folder, or None without a cache.
    """
    if not jax.config.values['jax_enable_compilation_cache']:
        return None
    _replace_unreadable_programs()
    if jax.config.values['jax_compilation_cache_dir'] is not None:
        return Path(jax.config.values['jax_compilation_cache_dir'])
    if jax.process_count() > 1:
        return None
    import platformdirs  # of the extra `train`

    # Programs for one CPU can crash another, and home folders are shared between machines. Pythons
    # since 3.14 compress them in another way, which older ones cannot read.
    name = _cpu() + '-zstd' * (sys.version_info >= (3, 14))
    folder = platformdirs.user_cache_path('ssanet_jax') / 'compiled' / name
    jax.config.update('jax_compilation_cache_dir', os.fspath(folder))
    jax.config.update('jax_compilation_cache_max_size', 4 << 30)
    return folder


@functools.cache
def _replace_unreadable_programs() -> None:
    """Makes JAX replace cached programs that were half written; it would leave them for good.

    JAX adds a program only if it did not find it, or could not read it. One without the time of
    its last use, which is written after it, stops JAX from adding any.
    """
    try:
        from jax._src.lru_cache import LRUCache  # private: another JAX may have none

        add = LRUCache.put
    except (ImportError, AttributeError):
        return

    def replace(self: Any, key: str, value: bytes) -> None:
        limited = getattr(self, 'eviction_enabled', None)
        used = ['path', 'lock', 'lock_timeout_secs'] if limited else ['path']
        if limited is None or not all(hasattr(self, name) for name in used):  # of another JAX
            return add(self, key, value)
        wait = self.lock_timeout_secs if limited else None
        with nullcontext() if wait is None else self.lock.acquire(timeout=wait):
            (self.path / f'{key}-cache').unlink(missing_ok=True)
            names = {path.name for path in self.path.iterdir()} if limited else ()
            for name in names:
                if name.endswith('-cache') and f'{name.removesuffix("cache")}atime' not in names:
                    (self.path / name).unlink()
            add(self, key, value)

    LRUCache.put = replace  # type: ignore[method-assign]


def _cpu() -> str:
    """Identifies the kind of processor."""
    described = [platform.machine(), platform.processor()]
    info = Path('/proc/cpuinfo')
    if info.exists():
        wanted = ('model name', 'flags', 'Features')
        described += sorted({x for x in info.read_text().splitlines() if x.startswith(wanted)})
    return f'{platform.machine()}-{hashlib.sha256("".join(described).encode()).hexdigest()[:12]}'


class StopSignals:
    """Calls a function with the number of each SIGTERM, SIGINT and SIGHUP of this process.

    A thread calls it, also while Python waits for compiled code, where Python's own handlers do not
    run. SIGHUP stays ignored if it is, as under nohup. Start and stop it in the main thread.
    """

    def __init__(self, handle: Callable[[int], None]):
        self._handle = handle
        self._handlers_before: dict[int, Any] = {}

    def start(self) -> None:
        """Replaces the handlers of these signals."""
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)
        self._fd_before = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
                self._handlers_before[number] = signal.signal(number, lambda *_: None)
        threading.Thread(target=self._listen, name='signals', daemon=True).start()

    def stop(self) -> None:
        """Restores the handlers from before `start`."""
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        self._sender.close()

    def _listen(self) -> None:
        while received := self._receiver.recv(1):
            if received[0] in self._handlers_before:
                self._handle(received[0])
        self._receiver.close()
