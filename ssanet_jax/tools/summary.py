r"""Prints a network's layers with their shapes, parameters and multiply-accumulates (MACs).

    ssanet summary --model=ssa_resnet50 --variant=v1
    ssanet summary --config=cifar10_ssa50 --num_classes=10
    ssanet summary --list

A row includes its submodules. Matmul MACs are those of convolutions and matrix products;
elementwise counts the multiplications, divisions and squares of attention blocks; MACs are the sum
of both, the multiply-adds of the SSANet paper. Counts are of the traced program, for
one image in inference; nothing is computed.
"""

import inspect
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from absl import flags

from ssanet_jax import runtime
from ssanet_jax.analysis.macs import LayerCost, layer_costs, total_cost
from ssanet_jax.attention import ATTENTION
from ssanet_jax.config.sizes import eval_size
from ssanet_jax.errors import ConfigError, one_line
from ssanet_jax.layers import unwrap_partial
from ssanet_jax.models import Network, create_model
from ssanet_jax.models.registry import NETWORKS
from ssanet_jax.tables import FORMATS, Column, Table, show, thousands
from ssanet_jax.tools import cli

FLAGS = flags.FLAGS

_OPTIONS = ('image_size', 'num_classes', 'stem', 'variant', 'depth')
_MEANING = (
    'Matmul MACs: of convolutions and matrix products. Elementwise: multiplications, divisions and '
    'squares in attention blocks. A row includes its submodules.'
)


def main() -> None:
    runtime.use_cpu()  # Shapes need no accelerator.
    _check_flags()
    show(names() if FLAGS.list else _of_model(), FLAGS.format)


def names() -> list[Table]:
    """The tables of all networks and of all attention blocks, whose names prefix theirs."""
    families = defaultdict(list)
    for name, make in NETWORKS.items():
        families[unwrap_partial(make).__name__].append(name)
    networks = [(kind, ', '.join(members)) for kind, members in families.items()]
    blocks = [
        (
            name,
            unwrap_partial(block).__name__,
            (inspect.getdoc(unwrap_partial(block)) or '').split('\n')[0],
        )
        for name, block in ATTENTION.items()
    ]
    words = [Column(name, left=True) for name in ('attention', 'class', 'summary')]
    note = 'A model is a network, optionally prefixed by an attention: resnet50, ssa_resnet50.'
    return [
        Table('Networks', [Column('class', left=True), Column('names', left=True)], networks),
        Table('Attention', words, blocks, [note]),
    ]


def layer_tables(layers: Sequence[LayerCost], title: str, depth: int) -> list[Table]:
    """The table of all modules down to `depth`, and the table of totals and attention's share.

    Args:
      layers: from `layer_costs`.
      title: of the first table.
      depth: 1 for the network's own submodules, 2 for theirs too, and so on.
    """
    rows: dict[str, list[Any]] = {}
    for layer in layers:
        path = layer.path.split('/') if layer.path else []
        for length in range(min(len(path), depth) + 1):
            key = '/'.join(path[:length])
            row = rows.setdefault(key, [key or '.', layer.kind, layer.output, 0, 0, 0])
            counts = (layer.parameters, layer.matmul_macs, layer.elementwise)
            row[3:] = [a + b for a, b in zip(row[3:], counts, strict=True)]
    columns = [Column(name, left=True) for name in ('module', 'class', 'output')]
    columns += [Column(name, thousands) for name in ('parameters', 'matmul MACs', 'elementwise')]
    return [Table(title, columns, list(rows.values()), [_MEANING]), _totals(layers)]


def _totals(layers: Sequence[LayerCost]) -> Table:
    whole, attention = (
        (cost.parameters, cost.matmul_macs, cost.attention_elementwise, cost.macs)
        for cost in (total_cost(layers), total_cost([x for x in layers if x.attention]))
    )
    share = [part / all_ if all_ else None for part, all_ in zip(attention, whole, strict=True)]
    names = ('parameters', 'matmul MACs', 'elementwise', 'MACs')
    columns = [Column('part', left=True), *(Column(name, _count_or_share) for name in names)]
    rows = [('network', *whole), ('its attention', *attention), ('share', *share)]
    return Table('Total', columns, rows)


def _count_or_share(value: float) -> str:
    return thousands(value) if isinstance(value, int) else f'{100 * value:.4f} %'


def _of_model() -> list[Table]:
    try:
        model, name, size = _from_recipe() if FLAGS.config else _from_flags()
        layers = layer_costs(model, size)
    except ValueError as error:
        raise ConfigError(one_line(error, 1000)) from error
    title = f'{name}, {model.num_classes} classes, {size}x{size} pixels'
    return layer_tables(layers, title, FLAGS.depth)


def _from_flags() -> tuple[Network, str, int]:
    values: dict[str, Any] = {name: FLAGS[name].value for name in ('stem', 'variant')}
    options = {name: value for name, value in values.items() if value}
    model = create_model(
        FLAGS.model, num_classes=1000 if FLAGS.num_classes is None else FLAGS.num_classes, **options
    )
    return model, FLAGS.model, FLAGS.image_size or (32 if model.stem == 'cifar' else 224)


def _from_recipe() -> tuple[Network, str, int]:
    from ssanet_jax.training.model import build_model  # which needs optax

    config = cli.recipe()
    return build_model(config, FLAGS.num_classes), config.model.name, eval_size(config.dataset)


def _check_flags() -> None:
    """Raises ConfigError unless one thing is requested and every option affects it."""
    requested = [name for name in ('model', 'config', 'list') if FLAGS[name].value]
    if len(requested) != 1:
        raise ConfigError('Choose one of --model=NAME, --config=FILE and --list.')
    used = {'model': set(_OPTIONS), 'config': {'num_classes', 'depth'}}.get(requested[0], set())
    for name in _OPTIONS:
        if FLAGS[name].value != FLAGS[name].default and name not in used:
            raise ConfigError(f'--{name} has no effect with --{requested[0]}; omit it.')
    if requested == ['config'] and FLAGS.num_classes is None:
        raise ConfigError('A recipe does not set the number of classes: add --num_classes=10.')


def define_flags() -> None:
    flags.DEFINE_string('model', None, 'Network of --list, such as ssa_resnet50.')
    cli.define_config('Recipe, one of configs/, instead of --model.', required=False)
    flags.DEFINE_bool('list', False, 'Print the names of all networks and attention blocks.')
    flags.DEFINE_enum('format', FORMATS[0], FORMATS, 'How to print.')
    flags.DEFINE_integer('depth', 2, 'Levels of submodules to show.', lower_bound=0)
    flags.DEFINE_integer(
        'image_size',
        None,
        "Height and width in pixels; unset: 224, or 32 with CIFAR's stem.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        'num_classes', None, 'Number of classes; unset: 1000; 0: no last layer.', lower_bound=0
    )
    flags.DEFINE_enum(
        'stem', None, ['imagenet', 'cifar', 'deep'], 'First layers; unset: the usual ones.'
    )
    flags.DEFINE_enum('variant', None, ['v1', 'v1.5'], 'Form of bottlenecks; unset: v1.5.')


if __name__ == '__main__':
    cli.run(main, define_flags)
