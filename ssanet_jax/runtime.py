"""Process-wide settings: devices, TensorFlow, and the cache of compiled programs."""

import hashlib
import os
import platform
from pathlib import Path

import jax
import platformdirs

from ssanet_jax.errors import one_line


def use_cpu() -> None:
    """Makes JAX compute on the CPU, unless JAX_PLATFORMS is set.

    Setting the variable itself would be too late: the package imports JAX, which reads it.
    """
    if 'JAX_PLATFORMS' not in os.environ:
        jax.config.update('jax_platforms', 'cpu')


def missing_device() -> str | None:
    """Why JAX cannot use the devices that JAX_PLATFORMS asks for, or None if it can."""
    platforms = jax.config.values['jax_platforms']
    try:
        jax.devices()
    except (AssertionError, RuntimeError) as error:
        if not platforms:
            raise
        reason = one_line(error).partition(' (set JAX_PLATFORMS')[0].rstrip('.')
        return (
            f'JAX_PLATFORMS={platforms}: JAX has no such device here'
            f'{reason and f" ({reason})"}. Unset it to take what there is, set it to cpu, or '
            "install JAX for the device, as pip install 'jax[cuda13]'."
        )
    return None


def silence_tensorflow() -> None:
    """Silences TensorFlow's log; call it before TensorFlow is imported.

    It only reads images here, and the readers report unreadable files themselves.
    """
    os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'  # no setdefault: importing JAX sets another level
    os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')


def start_tensorflow() -> None:
    """Imports TensorFlow silently, leaves GPUs to JAX, and enables the compilation cache."""
    silence_tensorflow()
    import tensorflow as tf

    tf.config.set_visible_devices([], 'GPU')
    enable_compilation_cache()


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
    """Identifies the kind of processor."""
    described = [platform.machine(), platform.processor()]
    info = Path('/proc/cpuinfo')
    if info.exists():
        wanted = ('model name', 'flags', 'Features')
        described += sorted({x for x in info.read_text().splitlines() if x.startswith(wanted)})
    return f'{platform.machine()}-{hashlib.sha256("".join(described).encode()).hexdigest()[:12]}'
