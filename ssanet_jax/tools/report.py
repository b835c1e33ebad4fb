r"""Writes a one-file page about a run: results, curves, confusions, calibration, gates, cost.

    python -m ssanet_jax.tools.report --workdir=runs/digits
    python -m ssanet_jax.tools.report --workdir=runs/digits --checkpoint=latest --out=latest.html

Evaluates the checkpoint once on the run's evaluation split; if the dataset is not available, the
page omits what needs it. The page loads nothing else, and fits a phone. The run may still be
training.
"""

from absl import flags
from etils import epath

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
    from ssanet_jax.training.workdir import saved_config

    saved_config(epath.Path(FLAGS.workdir))  # A mistake is found before TensorFlow.
    cli.start_tensorflow()
    from ssanet_jax.report import write_report

    path = write_report(FLAGS.workdir, FLAGS.checkpoint, FLAGS.out)
    print(f'Written to {path}')


if __name__ == '__main__':
    define_flags()
    cli.run(main)
