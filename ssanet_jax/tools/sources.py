"""The flags that select a trained network: --workdir, --checkpoint and --model."""

from typing import TYPE_CHECKING

from absl import flags

from ssanet_jax.errors import ConfigError

if TYPE_CHECKING:
    from ssanet_jax.trained.sources import AnyModel

FLAGS = flags.FLAGS

flags.disclaim_key_flags()  # --help lists flags defined here as those of the command


def define_flags() -> None:
    flags.DEFINE_string('workdir', None, 'Workdir of the run.')
    flags.DEFINE_string('checkpoint', 'best', 'With --workdir: best, latest or a step.')
    flags.DEFINE_string(
        'model',
        None,
        'Instead of --workdir: a published folder, hf://USER/NAME, '
        'torchvision://resnet50.IMAGENET1K_V2, timm://resnet50.a1_in1k.',
    )


def load() -> 'AnyModel':
    """The network of the flags.

    Raises:
      ConfigError: neither --workdir nor --model is given, or both, or it cannot be loaded.
    """
    if bool(FLAGS.workdir) == bool(FLAGS.model):
        raise ConfigError('Expected either --workdir, a run, or --model, a published network.')
    if FLAGS.workdir:
        from ssanet_jax.trained.load import load_trained

        return load_trained(FLAGS.workdir, FLAGS.checkpoint)
    if FLAGS['checkpoint'].present:
        raise ConfigError('--checkpoint has no effect with --model; leave it out.')
    from ssanet_jax.trained import sources

    return sources.load(FLAGS.model)


def described(trained: 'AnyModel') -> str:
    """'runs/digits, step 1,191', or the value of --model."""
    step = getattr(trained, 'step', None)
    return f'{FLAGS.workdir or FLAGS.model}' + ('' if step is None else f', step {step:,}')
