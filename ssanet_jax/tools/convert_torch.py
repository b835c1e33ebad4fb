r"""Converts weights between torch files, other libraries' namings and runs of this package.

    ssanet convert_torch --model=resnet50 --weights=resnet50.pth \
        --out=resnet50.safetensors
    ssanet convert_torch --model=ssa_resnet50 --weights=resnet50.pth \
        --insert --out=ssa50.safetensors
    ssanet convert_torch --workdir=runs/cifar10_ssa50 --to=torchvision \
        --out=ssa50.safetensors
    ssanet convert_torch --config=imagenet_resnet50 \
        --config.model.name=cbam_resnet50 --config.model.cbam.mlp_bias=False \
        --weights=cbam50.pth --to=timm --out=cbam50.safetensors

The first verifies that file and network match, the second inserts SSA as an identity, the third
writes the best checkpoint of a run, and the last sets options of the network. A run starts from
such a file, or from one of torch, with --config.init.weights=FILE.
"""

from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from absl import flags

from ssanet_jax import runtime, weights
from ssanet_jax.errors import ConfigError
from ssanet_jax.models import Network, create_model
from ssanet_jax.models.registry import split_name
from ssanet_jax.output import printable
from ssanet_jax.tools import cli
from ssanet_jax.weights.convert import StateDict

FLAGS = flags.FLAGS

# Flags that apply to each source of weights.
_OF_RUN = ('checkpoint',)
_OF_FILE = ('num_classes', 'ignore', 'part')
_OF_NAME = ('stem', 'insert', 'gate_scale')


class Converted(NamedTuple):
    model: Network
    variables: dict[str, Any]
    image_size: int | None


def define_flags() -> None:
    flags.DEFINE_string('model', None, 'Network of --weights, such as ssa_resnet50.')
    cli.define_config('Recipe with the network, instead of --model.', required=False)
    flags.DEFINE_string(
        'weights', None, 'File to read: .safetensors, or .pth, .pt, .bin, .tar, .ckpt of torch.'
    )
    flags.DEFINE_string('workdir', None, 'A run to convert, instead of a network and --weights.')
    flags.DEFINE_string('checkpoint', 'best', 'With --workdir: best, latest or a step.')
    flags.DEFINE_string('out', None, 'The file to write, .safetensors.', required=True)
    flags.DEFINE_string(
        'to', None, "Naming to write: torchvision, timm, ssanet, ...; unset: the network's first."
    )
    flags.DEFINE_integer(
        'num_classes',
        None,
        'Number of classes; unset: that of the weights; 0: no last layer.',
        lower_bound=0,
    )
    flags.DEFINE_enum(
        'stem',
        None,
        ['imagenet', 'cifar', 'deep'],
        'First layers of --model; unset: its usual ones.',
    )
    flags.DEFINE_bool('insert', False, 'Insert SSA into weights of --model without it.')
    flags.DEFINE_float(
        'gate_scale',
        2.0,
        'With --insert: factor of the sigmoid. 2 starts with gates of 1; other values, such as '
        "the paper's 1, are compensated in the preceding BatchNorm.",
    )
    flags.DEFINE_string(
        'part',
        None,
        'One of several networks in --weights, such as model_ema; unset: not averaged ones.',
    )
    flags.DEFINE_list('ignore', [], 'Patterns of names in --weights to leave out, such as aux1.*')


def main() -> None:
    if not FLAGS.out.endswith('.safetensors') or not Path(FLAGS.out).parent.is_dir():
        raise ConfigError(f'--out={FLAGS.out} must end in .safetensors, in a folder that exists.')
    runtime.use_cpu()  # Files need no accelerator.
    try:
        model, variables, size = _convert()
        arrays = weights.to_arrays(variables, model, naming=FLAGS.to)
        weights.save(FLAGS.out, arrays)
        restored = weights.from_torch(
            weights.load(FLAGS.out), model, naming=FLAGS.to, image_size=size
        )
    except (ImportError, OSError, ValueError) as error:
        raise ConfigError(str(error)) from error
    equal = partial(np.array_equal, equal_nan=True)  # a diverged run has NaNs
    if not jax.tree.all(jax.tree.map(equal, restored, variables)):
        raise ConfigError(f'{FLAGS.out} does not read back as it was written; check the disk.')
    count = sum(leaf.size for leaf in jax.tree.leaves(variables['params']))
    first = ', '.join(list(arrays)[:3])
    print(
        f'{FLAGS.out}: {count:,} parameters in {len(arrays)} arrays ({first}, ...), read back and '
        'equal.'
    )


def _convert() -> Converted:
    sources = [name for name in ('workdir', 'model', 'config') if FLAGS[name].value]
    if len(sources) != 1 or (sources == ['workdir']) == bool(FLAGS.weights):
        raise ConfigError(
            'Expected --weights with either --model or --config, or else the --workdir of a run.'
        )
    (source,) = sources
    _check_effect(source)
    if source == 'workdir':
        return _from_run()
    state_dict = weights.load(FLAGS.weights, part=FLAGS.part, say=_say)
    return _from_recipe(state_dict) if source == 'config' else _from_name(state_dict)


def _check_effect(source: str) -> None:
    used = {
        'workdir': _OF_RUN,
        'config': _OF_FILE,
        'model': (*_OF_FILE, *_OF_NAME),
    }[source]
    for name in (*_OF_RUN, *_OF_FILE, *_OF_NAME):
        if FLAGS[name].value != FLAGS[name].default and name not in used:
            raise ConfigError(f'--{name} has no effect with --{source}; omit it.')
    if FLAGS.gate_scale != FLAGS['gate_scale'].default and not FLAGS.insert:
        raise ConfigError(f'--gate_scale={FLAGS.gate_scale} has no effect without --insert.')


def _from_run() -> Converted:
    from ssanet_jax.trained.load import load_trained

    trained = load_trained(FLAGS.workdir, FLAGS.checkpoint)
    print(f'{trained.config.model.name}, step {trained.step} of {FLAGS.workdir}')
    return Converted(trained.model, trained.variables, trained.config.dataset.image_size)


def _from_recipe(state_dict: StateDict) -> Converted:
    from ssanet_jax.training.model import build_model  # needs optax

    config = cli.recipe()
    model, size = build_model(config, num_classes=1), config.dataset.image_size
    return Converted(*_load_into(model, state_dict, size), size)


def _from_name(state_dict: StateDict) -> Converted:
    options = {'stem': FLAGS.stem} if FLAGS.stem else {}
    if FLAGS.insert:
        kind, _ = split_name(FLAGS.model)
        if kind not in ('ssa', 'gssa'):
            raise ConfigError(f'--insert needs --model=ssa_... or gssa_..., not {FLAGS.model}.')
        options['attention_options'] = {'gate_scale': FLAGS.gate_scale, 'zero_init': True}
    model = create_model(FLAGS.model, num_classes=1, **options)
    if not FLAGS.insert:
        return Converted(*_load_into(model, state_dict), None)
    plain, variables = _load_into(weights.without_attention(model), state_dict)
    model = model.clone(num_classes=plain.num_classes)
    return Converted(model, weights.insert_attention(variables, model), None)


def _load_into(
    model: Network, state_dict: StateDict, image_size: int | None = None
) -> tuple[Network, dict[str, Any]]:
    """`model` with the number of classes of the weights, and its variables."""
    classes = FLAGS.num_classes
    if classes is None:
        classes = weights.num_classes(state_dict, model)
    model = model.clone(num_classes=classes)
    return model, weights.from_torch(
        state_dict, model, ignore=FLAGS.ignore, image_size=image_size, say=_say
    )


def _say(sentence: str) -> None:
    print(printable(sentence))


if __name__ == '__main__':
    cli.run(main, define_flags)
