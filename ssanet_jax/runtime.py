"""Process-wide settings: the cache of compiled programs."""

import hashlib
import os
import platform
from pathlib import Path

import jax
import platformdirs


def enable_compilation_cache() -> Path | None:
    """Keeps what takes a second or more to compile in the user's cache folder, 4 GiB at most.

    JAX_ENABLE_COMPILATION_CACHE=false turns it off, and a folder that the user chose, as the
    environment variable JAX_COMPILATION_CACHE_DIR, is left alone. Several hosts keep nothing
    unless they are given a folder that all of them see, since JAX writes on the first only.

    Returns:
      The folder, or None where nothing is kept.
    """
    if not jax.config.values['jax_enable_compilation_cache']:
        return None
    if jax.config.values['jax_compilation_cache_dir'] is not None:
        return Path(jax.config.values['jax_compilation_cache_dir'])
    if jax.process_count() > 1:
        return None
    # Programs for one CPU can crash another, and home folders are shared between machines.
    folder = platformdirs.user_cache_path('ssanet_jax') / 'compiled' / _cpu()
    jax.config.update('jax_compilation_cache_dir', os.fspath(folder))
    jax.config.update('jax_compilation_cache_max_size', 4 << 30)
    return folder


def _cpu() -> str:
    """A name for this kind of processor."""
    described = [platform.machine(), platform.processor()]
    info = Path('/proc/cpuinfo')
    if info.exists():
        wanted = ('model name', 'flags', 'Features')
        described += sorted({x for x in info.read_text().splitlines() if x.startswith(wanted)})
    return f'{platform.machine()}-{hashlib.sha256("".join(described).encode()).hexdigest()[:12]}'
