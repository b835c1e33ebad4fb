"""Trains variants of a network, paired by seed, and compares them.

    pip install 'ssanet-jax[study]'
    ssanet study --study=studies/digits.py --out=/data/digits

Each finished run leaves its outputs for every test image. The same command continues a study that
was stopped or killed, and hosts that share the folder share the runs. results.html, results.md and
results.json are written at the end. docs/studies.md has more.
"""

from pathlib import Path

from absl import flags

from ssanet_jax.errors import ConfigError
from ssanet_jax.tables import show
from ssanet_jax.tools import cli

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string('study', None, 'Python file with get_study(), as in studies/.')
    flags.DEFINE_string('out', None, 'Folder of the raw data and the results.', required=True)
    flags.DEFINE_integer(
        'workers', None, 'Processes; unset: one per GPU or CPU core; on TPUs, one.', lower_bound=1
    )
    flags.DEFINE_bool('allow_code_change', False, 'Continue runs of another commit.')
    flags.DEFINE_bool('analyze_only', False, 'Train nothing; analyze the runs in --out.')


def main() -> None:
    if FLAGS.analyze_only == bool(FLAGS.study):
        raise ConfigError('Give --study=FILE to train, or --analyze_only; see --help.')
    for name in ('workers', 'allow_code_change'):
        if FLAGS.analyze_only and FLAGS[name].present:
            raise ConfigError(f'--{name} has no effect with --analyze_only; omit it.')
    from ssanet_jax.study.analysis import write_results
    from ssanet_jax.study.folder import StudyFolder
    from ssanet_jax.study.page import write_pages
    from ssanet_jax.study.tables import terminal_table

    folder = StudyFolder(FLAGS.out)
    if not FLAGS.analyze_only:
        from ssanet_jax.study.supervisor import run_study

        run_study(
            Path(FLAGS.study),
            folder,
            workers=FLAGS.workers,
            allow_code_change=FLAGS.allow_code_change,
        )
    with cli.writing_out():
        analysis = write_results(folder)
        write_pages(folder, analysis)
    show([terminal_table(analysis)], 'table')
    print(f'{analysis.question} {analysis.summary}\nWritten to {folder.page}')


if __name__ == '__main__':
    cli.obey_interrupts()
    cli.run(main, define_flags)
