"""Tables of what gates do, and of what each is worth."""

from collections.abc import Callable, Mapping
from typing import Any

from ssanet_jax.analysis.gates import GateShape, GateStatistics
from ssanet_jax.tables import Column, Table
from ssanet_jax.trained.ablation import KIND_NAMES, Ablation


def _percent(share: float) -> str:
    return f'{100 * share:.1f} %'


_NUMBERS: dict[str, tuple[str, Callable[[Any], str]]] = {  # fields of GateStatistics
    'mean': ('mean', '{:.3f}'.format),
    'std': ('std', '{:.3f}'.format),
    'spatial_std': ('std within images', '{:.3f}'.format),
    'image_std': ('std between images', '{:.3f}'.format),
    'low': ('low', _percent),
    'high': ('high', _percent),
    'entropy': ('entropy', '{:.4f}'.format),
}


def statistics_table(statistics: Mapping[str, GateStatistics], title: str) -> Table:
    """A row for each gate; see `GateStatistics` for the columns."""
    numbers = [Column(*heading) for heading in _NUMBERS.values()]
    columns = [Column('gate', left=True), Column('size', left=True), *numbers]
    rows = [
        (name, _size(gate.shape), *(getattr(gate, field) for field in _NUMBERS), gate.dead)
        for name, gate in statistics.items()
    ]
    return Table(title, [*columns, Column('dead', left=True)], rows)


def _size(shape: GateShape) -> str:
    """'8 x 8', '8 x 8, 4 maps' or '64 channels'."""
    if shape.height * shape.width == 1:
        return f'{shape.maps} channels' if shape.maps > 1 else '1 x 1'
    maps = f', {shape.maps} maps' if shape.maps > 1 else ''
    return f'{shape.height} x {shape.width}{maps}'


def ablation_table(ablation: Ablation) -> Table:
    """A row for all gates at once, then one for each; see `ablate` for the columns."""
    columns = [Column('gate', left=True)]
    for kind in ablation.changes:
        columns += [
            Column(f'top-1, {KIND_NAMES[kind]}', '{:+.2f}'.format),
            Column(f'loss, {KIND_NAMES[kind]}', '{:+.4f}'.format),
        ]
    names = list(next(iter(ablation.changes.values())))
    rows = [
        (name, *(value for changes in ablation.changes.values() for value in changes[name]))
        for name in names
    ]
    title = (
        f'Changes from top-1 {ablation.top1:.2f} %, in percentage points, and from loss '
        f'{ablation.loss:.4f}'
    )
    return Table(title, columns, rows, [f'One image is {100 / ablation.images:.2g} points.'])
