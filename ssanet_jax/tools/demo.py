r"""A web page for a trained network: drop an image, see its classes and where the network looks.

    python -m ssanet_jax.tools.demo --workdir=runs/digits

Then open http://127.0.0.1:7860 in a browser; Ctrl-C ends it. The page is for this machine alone.
Look at it from another through `ssh -L 7860:127.0.0.1:7860 HOST`. With --host=0.0.0.0 everyone in
the network can use it: there is no password.
"""

import os

# TensorFlow only reads images here, and what it cannot read is reported on the page; JAX, which
# the package has imported, has set a default of its own.
os.environ['TF_CPP_MIN_LOG_LEVEL'] = '3'
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

import ipaddress

from absl import flags

from ssanet_jax import compilation_cache
from ssanet_jax.config import ConfigError
from ssanet_jax.tools import cli

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Not at import: flags of several commands would collide."""
    flags.DEFINE_string('workdir', None, 'The run.', required=True)
    flags.DEFINE_string('checkpoint', 'best', 'best, latest or a step.')
    flags.DEFINE_string('host', '127.0.0.1', 'Address to listen to.')
    flags.DEFINE_integer('port', 7860, 'Port to listen to.', lower_bound=1, upper_bound=65535)
    flags.DEFINE_integer('max_upload_mb', 16, 'Largest file to take, in MB.', lower_bound=1)


def main(argv: list[str]) -> None:
    if argv[1:]:
        raise ConfigError(f'Unexpected argument {argv[1]!r}: every option begins with --.')
    from ssanet_jax.training.saved import load_run

    run = load_run(FLAGS.workdir, FLAGS.checkpoint)
    try:
        from ssanet_jax import demo
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'The page needs {error.name}, which is not installed: pip install .[demo]'
        ) from error
    import tensorflow as tf

    tf.config.set_visible_devices([], 'GPU')  # They are JAX's.
    compilation_cache.enable()
    print(f'http://{FLAGS.host}:{FLAGS.port} shows {FLAGS.workdir}, step {run.step:,}.', flush=True)
    if not _is_loopback(FLAGS.host):
        print('Everyone who can reach this address can use the page: it has no password.')
    try:
        demo.serve(
            run,
            host=FLAGS.host,
            port=FLAGS.port,
            max_upload_bytes=FLAGS.max_upload_mb * 10**6,
            block=True,
        )
    except OSError as error:
        raise ConfigError(
            f'--host={FLAGS.host} --port={FLAGS.port} cannot be listened to: {error} Choose others.'
        ) from error


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


if __name__ == '__main__':
    define_flags()
    cli.run(main)
