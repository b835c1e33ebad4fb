r"""Writes a page about a run, in one file: results, curves, confusions, calibration, gates, cost.

    python -m ssanet_jax.tools.report --workdir=runs/digits
    python -m ssanet_jax.tools.report --workdir=runs/digits --checkpoint=latest --out=latest.html

The checkpoint is evaluated once on the run's evaluation split; without its data the page has what
needs no image, and says so. It needs no other file and no network, and fits a phone. The run may
be going on.
"""

from absl import flags
from etils import epath

from ssanet_jax import runtime
from ssanet_jax.tools import cli

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string('workdir', None, 'The run.', required=True)
    flags.DEFINE_string('checkpoint', 'best', 'best, latest or a step.')
    flags.DEFINE_string('out', None, 'HTML file to write; report.html in the workdir by default.')


def main() -> None:
    from ssanet_jax.training.workdir import saved_config

    saved_config(epath.Path(FLAGS.workdir))  # A mistake is found before TensorFlow.
    runtime.start_tensorflow()
    from ssanet_jax.report import write_report

    path = write_report(FLAGS.workdir, FLAGS.checkpoint, FLAGS.out)
    print(f'Written to {path}')


if __name__ == '__main__':
    cli.run(main, define_flags)
