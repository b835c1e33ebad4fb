"""Trains an SSANet, or evaluates a checkpoint.

    python main.py --config=configs/digits_ssa20.py --workdir=runs/digits
    python main.py --config=configs/digits_ssa20.py --workdir=runs/digits --mode=eval

Any field of ssanet_jax/config.py can be overridden: --config.optimizer.learning_rate=0.05
Running it again in the same workdir goes on from the newest checkpoint, after a kill, too.
"""

import os

# TensorFlow only reads images here; it should do so without a word.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

from absl import flags
from ml_collections import config_flags

from ssanet_jax import runtime
from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import cli

config_flags.DEFINE_config_file('config', None, 'Recipe, one of configs/.', sys_argv=cli.ARGV)
_WORKDIR = flags.DEFINE_string('workdir', None, 'Folder of everything that the run leaves.')
_MODE = flags.DEFINE_enum('mode', 'train', ['train', 'eval'], 'What to do.')
_CHECKPOINT = flags.DEFINE_string('checkpoint', 'best', 'For eval: best, latest, init, a step.')
_ALLOW = flags.DEFINE_bool('allow_config_change', False, 'Go on with another config or data.')
_REPORT = flags.DEFINE_bool('report', True, 'Write report.html at the end.')
_COORDINATOR = flags.DEFINE_string('coordinator_address', None, 'host:port of the first host.')
_NUM_PROCESSES = flags.DEFINE_integer('num_processes', None, 'Number of hosts.', lower_bound=1)
_PROCESS_ID = flags.DEFINE_integer('process_id', None, 'This host, from 0.', lower_bound=0)


def main(argv: list[str]) -> None:
    config = cli.recipe(argv)  # Mistakes are found before TensorFlow, which takes seconds.
    if _MODE.value == 'train' and flags.FLAGS['checkpoint'].present:
        raise ConfigError('--checkpoint has no effect without --mode=eval; leave it out.')
    from ssanet_jax.training import parallel

    parallel.initialize_hosts(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    runtime.enable_compilation_cache()
    import tensorflow as tf

    from ssanet_jax.training import evaluation, loop

    tf.config.set_visible_devices([], 'GPU')  # They are JAX's.
    if _MODE.value == 'train':
        loop.train_and_evaluate(config, _WORKDIR.value, allow_config_change=_ALLOW.value)
        if _REPORT.value:
            from ssanet_jax.report import report_at_end

            report_at_end(_WORKDIR.value)
    else:
        evaluation.evaluate_checkpoint(config, _WORKDIR.value, _CHECKPOINT.value)


if __name__ == '__main__':
    cli.obey_interrupts()
    flags.mark_flags_as_required(['config', 'workdir'])
    cli.run(main)
