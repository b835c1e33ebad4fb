r"""Writes a page about a run, in one file: results, curves, confusions, calibration, gates, cost.

    python -m ssanet_jax.tools.report --workdir=runs/digits
    python -m ssanet_jax.tools.report --workdir=runs/digits --checkpoint=latest --out=latest.html

The checkpoint is evaluated once on the run's evaluation split; without its data the page has what
needs no image, and says so. It needs no other file and no network, and fits a phone. The run may
be going on.
"""

from absl import flags

from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import cli

FLAGS = flags.FLAGS


def define_flags() -> None:
    """Not at import: flags of several commands would collide."""
    flags.DEFINE_string('workdir', None, 'The run.', required=True)
    flags.DEFINE_string('checkpoint', 'best', 'best, latest or a step.')
    flags.DEFINE_string('out', None, 'HTML file to write; report.html in the workdir by default.')


def main(argv: list[str]) -> None:
    if argv[1:]:
        raise ConfigError(f'Unexpected argument {argv[1]!r}: every option begins with --.')
    from ssanet_jax.training.workdir import Workdir

    Workdir(FLAGS.workdir).read_config()  # A mistake is found before TensorFlow.
    cli.start_tensorflow()
    from ssanet_jax.report import write_report

    path = write_report(FLAGS.workdir, FLAGS.checkpoint, FLAGS.out)
    print(f'Written to {path}')


if __name__ == '__main__':
    define_flags()
    cli.run(main)
