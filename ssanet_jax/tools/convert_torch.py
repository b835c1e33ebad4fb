"""Converts weights between torch's files, other libraries' names and runs of this package.

    python -m ssanet_jax.tools.convert_torch --model=resnet50 --weights=resnet50.pth \
        --out=resnet50.safetensors
    python -m ssanet_jax.tools.convert_torch --model=ssa_resnet50 --weights=resnet50.pth \
        --insert --out=ssa50.safetensors
    python -m ssanet_jax.tools.convert_torch --workdir=runs/cifar10_ssa50 --to=torchvision \
        --out=ssa50.safetensors

The first checks that every weight of the file finds its place, the second puts SSA into the
network so that it computes what it did, the third writes the best checkpoint of a run. A run
starts from such a file, or from torch's, with --config.init.weights=FILE.
"""

from pathlib import Path
from typing import Any

import jax
import numpy as np
from absl import flags
from rich.console import Console

from ssanet_jax import weights
from ssanet_jax.config import ConfigError
from ssanet_jax.models import Network, create_model
from ssanet_jax.tools import cli

FLAGS = flags.FLAGS
_console = Console(soft_wrap=True, highlight=False)


def define_flags() -> None:
    flags.DEFINE_string('model', None, 'Network of --weights, as ssa_resnet50.')
    flags.DEFINE_string('weights', None, '.safetensors, or .pth, .pt, .bin, .tar of torch.')
    flags.DEFINE_string('workdir', None, 'A run to convert, instead of --model and --weights.')
    flags.DEFINE_string('checkpoint', 'best', 'With --workdir: best, latest or a step.')
    flags.DEFINE_string('out', None, 'The file to write, .safetensors.', required=True)
    flags.DEFINE_string(
        'to', None, "Names to write: torchvision, timm, ssanet, ... Unset: the network's first."
    )
    flags.DEFINE_integer('num_classes', None, 'Of --model. Unset: as the weights have.')
    flags.DEFINE_enum('stem', None, ['imagenet', 'cifar'], 'Of --model. Unset: as it has.')
    flags.DEFINE_bool('insert', False, 'The weights are of the network without SSA; put it in.')
    flags.DEFINE_enum(
        'gate',
        '2sigmoid',
        ['sigmoid', '2sigmoid'],
        "With --insert: gates of 1, or the paper's, made up for by the BatchNorm in front.",
    )
    flags.DEFINE_list('ignore', [], 'Patterns of names in --weights to leave out, as aux1.*')


def main(argv: list[str]) -> None:
    if argv[1:]:
        raise ConfigError(f'Unexpected argument {argv[1]!r}: every option begins with --.')
    if not FLAGS.out.endswith('.safetensors') or not Path(FLAGS.out).parent.is_dir():
        raise ConfigError(f'--out={FLAGS.out} must end in .safetensors, in a folder that exists.')
    try:
        model, variables = _from_run() if FLAGS.workdir else _from_file()
        arrays = weights.to_arrays(variables, model, naming=FLAGS.to)
        weights.write(FLAGS.out, arrays)
        back = weights.from_torch(weights.read(FLAGS.out), model, naming=FLAGS.to)
    except (ImportError, OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    if not jax.tree.all(jax.tree.map(np.array_equal, back, variables)):
        raise ConfigError(f'{FLAGS.out} does not read back as it was written; check the disk.')
    count = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
    first = ', '.join(list(arrays)[:3])
    _console.print(
        f'{FLAGS.out}: {count:,} parameters in {len(arrays)} arrays ({first}, ...), read back and '
        'equal.'
    )


def _from_run() -> tuple[Network, dict[str, Any]]:
    from ssanet_jax.training.saved import load_run

    for name in ('model', 'weights', 'num_classes', 'stem', 'insert'):
        if FLAGS[name].present:
            raise ConfigError(f'--{name} has no effect with --workdir; leave one of them out.')
    run = load_run(FLAGS.workdir, FLAGS.checkpoint)
    _console.print(f'{run.config.model.name}, step {run.step} of {FLAGS.workdir}')
    return run.model, run.variables


def _from_file() -> tuple[Network, dict[str, Any]]:
    if not FLAGS.model or not FLAGS.weights:
        raise ConfigError('Give --model and --weights, or the --workdir of a run.')
    if FLAGS.gate != FLAGS['gate'].default and not FLAGS.insert:
        raise ConfigError(f'--gate={FLAGS.gate} has no effect without --insert.')
    state_dict = weights.read(FLAGS.weights)
    options = {'stem': FLAGS.stem} if FLAGS.stem else {}
    if FLAGS.insert:
        options['attention_options'] = {'gate': FLAGS.gate}
    model = create_model(FLAGS.model, num_classes=FLAGS.num_classes or 1, **options)
    if not FLAGS.num_classes:
        model = model.clone(num_classes=weights.num_classes(state_dict, model))
    if not FLAGS.insert:
        return model, weights.from_torch(state_dict, model, ignore=FLAGS.ignore)
    plain = weights.without_attention(model)
    variables = weights.from_torch(state_dict, plain, ignore=FLAGS.ignore)
    return model, weights.insert_attention(variables, model)


if __name__ == '__main__':
    define_flags()
    cli.run(main)
