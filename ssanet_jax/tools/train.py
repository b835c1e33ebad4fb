"""Trains an SSANet, or evaluates a checkpoint.

    ssanet train --config=digits_ssa20 --workdir=runs/digits
    ssanet train --workdir=runs/digits --mode=eval

Running it again in the same workdir resumes from the newest checkpoint. Without --config, the
config is that of the run in the workdir. Any field of the config can be overridden, for example
with --config.optimizer.learning_rate=0.05; --help and docs/config.md list them.
"""

from absl import flags

from ssanet_jax import runtime
from ssanet_jax.errors import ConfigError
from ssanet_jax.output import lossy_output
from ssanet_jax.tools import cli

FLAGS = flags.FLAGS


def define_flags() -> None:
    from ssanet_jax.config.describe import help_text

    text = 'Recipe, a name or a file; by default the config of the run in --workdir.'
    fields = f'Fields to override:\n\n{help_text()}'
    cli.define_config(f'{text}\n\n{fields}', from_workdir=True)
    flags.DEFINE_string('workdir', None, 'Folder for all files of the run.', required=True)
    flags.DEFINE_enum('mode', 'train', ['train', 'eval'], 'Train, or evaluate a checkpoint.')
    flags.DEFINE_string('checkpoint', 'best', 'To evaluate: best, latest, init or a step.')
    flags.DEFINE_bool('allow_config_change', False, 'Resume with another config or dataset.')
    flags.DEFINE_bool('report', True, 'Write report.html at the end of training.')
    flags.DEFINE_string('coordinator_address', None, 'host:port of the first host.')
    flags.DEFINE_integer(
        'num_processes', None, 'Number of hosts; given alone, 1 skips detection.', lower_bound=1
    )
    flags.DEFINE_integer('process_id', None, 'Number of this host, from 0.', lower_bound=0)


def main() -> None:
    config = cli.recipe()
    for name, mode in (('checkpoint', 'eval'), ('allow_config_change', 'train')):
        if FLAGS[name].present and FLAGS.mode != mode:
            raise ConfigError(f'--{name} has no effect without --mode={mode}; omit it.')
    from ssanet_jax.training.multihost import hosts

    hosts.connect(FLAGS.coordinator_address, FLAGS.num_processes, FLAGS.process_id)
    if message := runtime.missing_device():
        raise ConfigError(message)
    runtime.enable_compilation_cache()
    from ssanet_jax.training import evaluation, loop

    if FLAGS.mode == 'eval':
        evaluation.evaluate_checkpoint(config, FLAGS.workdir, FLAGS.checkpoint)
        return
    with lossy_output():
        loop.train_and_evaluate(
            config, FLAGS.workdir, allow_config_change=FLAGS.allow_config_change
        )
        if FLAGS.report:
            from ssanet_jax.report import report_at_end

            report_at_end(FLAGS.workdir)


if __name__ == '__main__':
    cli.obey_interrupts()
    cli.run(main, define_flags)
