r"""Writes a one-file page about a run: results, curves, confusions, calibration, gates, cost.

    ssanet report --workdir=runs/digits
    ssanet report --workdir=runs/digits --checkpoint=latest --out=latest.html

Evaluates the checkpoint once on the run's evaluation split; if the dataset is not available, the
page omits what needs it. The page loads nothing else, and fits a phone. The run may still be
training.
"""

from absl import flags

from ssanet_jax import runtime
from ssanet_jax.tools import cli

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string('workdir', None, 'Workdir of the run.', required=True)
    flags.DEFINE_string('checkpoint', 'best', 'best, latest or a step.')
    flags.DEFINE_string('out', None, 'HTML file to write; report.html in the workdir by default.')


def main() -> None:
    from ssanet_jax.training.storage.workdir import Workdir

    Workdir(FLAGS.workdir).read_config()
    runtime.enable_compilation_cache()
    from ssanet_jax.report import write_report

    path = write_report(FLAGS.workdir, FLAGS.checkpoint, FLAGS.out)
    print(f'Written to {path}')


if __name__ == '__main__':
    cli.run(main, define_flags)
