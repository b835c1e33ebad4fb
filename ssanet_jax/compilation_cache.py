"""Compiled programs kept on disk, so that a second start does not compile again."""

import hashlib
import os
import platform
from pathlib import Path

import jax
import platformdirs


def enable() -> Path | None:
    """Keeps what takes a second or more to compile in the user's cache folder.

    A folder that the user chose, as the environment variable JAX_COMPILATION_CACHE_DIR, is
    left alone, and JAX_ENABLE_COMPILATION_CACHE=false turns the cache off.

    Returns:
      The folder, or None where the cache is off.
    """
    if not jax.config.values['jax_enable_compilation_cache']:
        return None
    if jax.config.values['jax_compilation_cache_dir'] is None:
        # Programs for one CPU can crash another, and home folders are shared between machines.
        folder = platformdirs.user_cache_path('ssanet_jax') / 'compiled' / _cpu()
        jax.config.update('jax_compilation_cache_dir', os.fspath(folder))
    return Path(jax.config.values['jax_compilation_cache_dir'])


def _cpu() -> str:
    """A name for this kind of processor."""
    described = [platform.machine(), platform.processor()]
    info = Path('/proc/cpuinfo')
    if info.exists():
        wanted = ('model name', 'flags', 'Features')
        described += sorted({x for x in info.read_text().splitlines() if x.startswith(wanted)})
    return f'{platform.machine()}-{hashlib.sha256("".join(described).encode()).hexdigest()[:12]}'
