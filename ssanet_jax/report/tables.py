"""The parts of a report that need no image: cost, config, starts of the run."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from ssanet_jax.analysis.macs import LayerCost, total_cost
from ssanet_jax.config import base, flatten
from ssanet_jax.tables import Column, Table, thousands

_STARTS = 50  # in the table; a run on machines that are taken away may have hundreds
_FIRST = ('time', 'host', 'step', 'hosts', 'devices', 'device_kind', 'dataset')


def cost_table(layers: Sequence[LayerCost], image_size: int) -> Table:
    """What each submodule of the network costs, with all that is in it; then all of them."""
    parts: dict[str, list[LayerCost]] = {}
    for layer in layers:
        parts.setdefault(layer.path.partition('/')[0], []).append(layer)
    whole = parts.pop('', [])  # the network itself: what it does outside of its submodules
    rows = [(name, inside[0].output, *_counts(inside)) for name, inside in parts.items()]
    if any(_counts(whole)):
        rows.append(('the rest', '', *_counts(whole)))
    attention = [layer for layer in layers if layer.attention]
    rows += [('whole network', '', *_counts(layers)), ('its attention', '', *_counts(attention))]
    columns = [Column('module', left=True), Column('output', left=True)]
    columns += [Column(name, thousands) for name in ('parameters', 'multiply-adds')]
    return Table(f'Cost of one image of {image_size}x{image_size} pixels', columns, rows)


def _counts(layers: Sequence[LayerCost]) -> tuple[int, int]:
    cost = total_cost(layers)
    return cost.parameters, cost.macs


def config_tables(config: ConfigDict) -> tuple[Table, Table]:
    """The fields that are not the defaults, and all fields."""
    defaults, columns = flatten(base()), [Column('field', left=True), Column('value', left=True)]
    rows = [(name, _text(value), _text(defaults[name])) for name, value in flatten(config).items()]
    differ = [row for row in rows if row[1] != row[2]]
    return (
        Table('What differs from the defaults', [*columns, Column('default', left=True)], differ),
        Table('The whole config', columns, [row[:2] for row in rows]),
    )


def _text(value: Any) -> str:
    return 'unset' if value is None else str(value)


def starts_table(starts: Sequence[Mapping[str, Any]]) -> Table:
    """Machines and versions of every start, or of the last ones of very many."""
    versions = {name: None for start in starts for name in start.get('versions', {})}
    columns = [Column(name.replace('_', ' '), left=True) for name in (*_FIRST, *versions)]
    rows = [
        (
            *(start.get(name) for name in _FIRST),
            *(start.get('versions', {}).get(name) for name in versions),
        )
        for start in starts[-_STARTS:]
    ]
    more = [f'The first {len(starts) - _STARTS:,} starts are left out.']
    return Table('Starts', columns, rows, more if len(starts) > _STARTS else [])
