"""Tables of a report that need no images: cost, config and starts of the run."""

from collections.abc import Mapping, Sequence
from typing import Any

from ml_collections import ConfigDict

from ssanet_jax.analysis.macs import LayerCost, total_cost
from ssanet_jax.config import base, flatten
from ssanet_jax.tables import Column, Table, thousands

_MAX_STARTS = 50  # a run on preemptible machines may have hundreds
_START_FIELDS = ('time', 'host', 'step', 'hosts', 'devices', 'device_kind', 'dataset')


def cost_table(layers: Sequence[LayerCost], image_size: int) -> Table:
    """Parameters and MACs of each submodule of the network, then of the whole network."""
    parts: dict[str, list[LayerCost]] = {}
    for layer in layers:
        parts.setdefault(layer.path.partition('/')[0], []).append(layer)
    whole = parts.pop('', [])  # the network itself: what it does outside of its submodules
    rows = [(name, inside[0].output, *_counts(inside)) for name, inside in parts.items()]
    if any(_counts(whole)):
        rows.append(('other', '', *_counts(whole)))
    attention = [layer for layer in layers if layer.attention]
    rows += [('whole network', '', *_counts(layers)), ('attention alone', '', *_counts(attention))]
    columns = [Column('module', left=True), Column('output', left=True)]
    columns += [Column(name, thousands) for name in ('parameters', 'MACs')]
    return Table(f'Cost of one image of {image_size}x{image_size} pixels', columns, rows)


def _counts(layers: Sequence[LayerCost]) -> tuple[int, int]:
    cost = total_cost(layers)
    return cost.parameters, cost.macs


def config_tables(config: ConfigDict) -> tuple[Table, Table]:
    """The fields that differ from the defaults, and all fields."""
    defaults, columns = flatten(base()), [Column('field', left=True), Column('value', left=True)]
    rows = [(name, _text(value), _text(defaults[name])) for name, value in flatten(config).items()]
    differ = [row for row in rows if row[1] != row[2]]
    return (
        Table('Changed from the defaults', [*columns, Column('default', left=True)], differ),
        Table('All fields', columns, [row[:2] for row in rows]),
    )


def _text(value: Any) -> str:
    return 'unset' if value is None else str(value)


def starts_table(starts: Sequence[Mapping[str, Any]]) -> Table:
    """Machines and package versions at each start, or at the last 50."""
    versions = {name: None for start in starts for name in start.get('versions', {})}
    names = [*(name.replace('_', ' ') for name in _START_FIELDS), *versions]
    columns = [Column(name, left=True) for name in names]
    rows = [
        (
            *(start.get(name) for name in _START_FIELDS),
            *(start.get('versions', {}).get(name) for name in versions),
        )
        for start in starts[-_MAX_STARTS:]
    ]
    omitted = [f'The first {len(starts) - _MAX_STARTS:,} starts are omitted.']
    return Table(
        'Machine and versions at each start',
        columns,
        rows,
        omitted if len(starts) > _MAX_STARTS else [],
    )
