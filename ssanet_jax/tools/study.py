"""Trains variants of a network, paired by seed, and compares them.

    python -m ssanet_jax.tools.study --study=studies/digits.py --out=studies/results/digits

Each finished run leaves its outputs for every test image. The same command continues a study that
was stopped or killed, and hosts that share the folder share the runs. docs/studies.md has more.
"""

from pathlib import Path

from absl import flags

from ssanet_jax import runtime
from ssanet_jax.tools import cli

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string('study', None, 'Python file with get_study(), as in studies/.')
    flags.DEFINE_string('out', None, 'Folder of the raw data and the results.', required=True)
    flags.DEFINE_integer(
        'workers', None, 'Processes; unset: one per GPU or processor core.', lower_bound=1
    )
    flags.DEFINE_bool('allow_code_change', False, 'Continue runs of another commit.')
    flags.DEFINE_bool('analyze_only', False, 'Train nothing; analyze the runs in --out.')


def main() -> None:
    runtime.silence_tensorflow()
    from ssanet_jax.study.folder import StudyFolder
    from ssanet_jax.study.supervisor import run_study

    folder = StudyFolder(FLAGS.out)
    run_study(
        Path(FLAGS.study),
        folder,
        workers=FLAGS.workers,
        allow_code_change=FLAGS.allow_code_change,
    )


if __name__ == '__main__':
    cli.obey_interrupts()
    cli.run(main, define_flags)
