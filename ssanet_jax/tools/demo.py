r"""A web page for a trained network: drop an image, see its classes and where the network looks.

    python -m ssanet_jax.tools.demo --workdir=runs/digits

Then open http://127.0.0.1:7860 in a browser; Ctrl-C ends it. The page is for this machine alone.
Look at it from another through `ssh -L 7860:127.0.0.1:7860 HOST`. With --host=0.0.0.0 everyone in
the network can use it: there is no password.
"""

import ipaddress

from absl import flags

from ssanet_jax import runtime
from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import cli

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string('workdir', None, 'The run.', required=True)
    flags.DEFINE_string('checkpoint', 'best', 'best, latest or a step.')
    flags.DEFINE_string('host', '127.0.0.1', 'Address to listen to.')
    flags.DEFINE_integer('port', 7860, 'Port to listen to.', lower_bound=1, upper_bound=65535)
    flags.DEFINE_integer('max_upload_mb', 16, 'Largest file to take, in MB.', lower_bound=1)
    flags.DEFINE_integer('max_megapixels', 50, 'Of an image, at most.', lower_bound=1)


def main() -> None:
    from ssanet_jax.trained.load import load_trained

    run = load_trained(FLAGS.workdir, FLAGS.checkpoint)
    runtime.start_tensorflow()
    try:
        from ssanet_jax.tools import demo_page
    except ModuleNotFoundError as error:
        raise ConfigError(
            f'The page needs {error.name}, which is not installed: pip install .[demo]'
        ) from error
    try:
        page = demo_page.serve(
            run,
            host=FLAGS.host,
            port=FLAGS.port,
            max_upload_bytes=FLAGS.max_upload_mb * 10**6,
            max_image_pixels=FLAGS.max_megapixels * 10**6,
        )
    except (OSError, ValueError) as error:
        reason = ' '.join(str(error).split())
        raise ConfigError(
            f'--host={FLAGS.host} --port={FLAGS.port} cannot be listened to: {reason} Choose '
            'others, or set NO_PROXY=127.0.0.1,localhost.'
        ) from error
    host = f'[{FLAGS.host}]' if ':' in FLAGS.host else FLAGS.host
    print(f'http://{host}:{FLAGS.port} shows {FLAGS.workdir}, step {run.step:,}.', flush=True)
    if not _is_loopback(FLAGS.host):
        print('Everyone who can reach this address can use the page: it has no password.')
    page.blocks.block_thread()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


if __name__ == '__main__':
    cli.run(main, define_flags)
