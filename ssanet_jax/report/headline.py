"""The first lines of a report: the numbers, and what they are of."""

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ssanet_jax.analysis.macs import LayerCost, total_cost
from ssanet_jax.report.evaluation import Evaluation
from ssanet_jax.tables import si_format
from ssanet_jax.trained.load import TrainedModel

_VALUES = ('top1', 'top5', 'loss', 'num_examples')


class Headline(NamedTuple):
    """What stands above everything else.

    Attributes:
      title: network and data.
      tiles: (name, number) of the most important ones.
      facts: (name, text) of the others.
      source: where the numbers are from.
    """

    title: str
    tiles: list[tuple[str, str]]
    facts: list[tuple[str, str]]
    source: str


def headline(
    config: ConfigDict,
    run: TrainedModel | None,
    evaluation: Evaluation | None,
    lines: Sequence[Mapping[str, Any]],
    layers: Sequence[LayerCost],
    starts: Sequence[Mapping[str, Any]],
    epoch: float | None,
) -> Headline:
    """Puts together what is known.

    Args:
      lines: of metrics.jsonl.
      layers: of the network, from `layer_costs`; empty where it is not known.
      starts: lines of starts.jsonl.
      epoch: steps of one, if known.
    """
    step = run.step if run else None
    logged = [
        line
        for line in lines
        if line['split'] == 'eval' and line['step'] == step and line.keys() >= {*_VALUES}
    ]
    means: Mapping[str, Any] | None = evaluation.means() if evaluation else None
    source = f'Evaluated for this page on {config.dataset.eval_split!r} of {config.dataset.name}.'
    if means is None and logged:
        means, source = logged[-1], 'The numbers are those that the run logged at this step.'
    elif means is None:
        source = ''
    elif logged:
        source += ' ' + _comparison(means, logged[-1])
    title = f'{config.model.name} on {config.dataset.name}'
    tiles = _tiles(means, len(run.classes) if run else 0) if means else []
    facts = [*_of_network(config, run, layers, epoch), *_of_starts(starts)]
    facts.append(('page written', time.strftime('%Y-%m-%d %H:%M %Z')))
    return Headline(title, tiles, facts, source)


def _comparison(means: Mapping[str, Any], logged: Mapping[str, Any]) -> str:
    pairs = [(means[name], logged[name]) for name in _VALUES]
    if all(
        math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-3) or (math.isnan(a) and math.isnan(b))
        for a, b in pairs
    ):
        return 'The run logged the same at this step.'
    return (
        f'The run logged {logged["top1"]:.2f} % and a loss of {logged["loss"]:.4f} on '
        f'{logged["num_examples"]:,} images at this step; the data, the versions or the device are '
        'others now.'
    )


def _tiles(means: Mapping[str, Any], num_classes: int) -> list[tuple[str, str]]:
    finite = math.isfinite(means['loss'])
    tiles = [('top-1', f'{means["top1"]:.2f} %')]
    if num_classes > 5:  # else every image is right by top-5
        tiles.append(('top-5', f'{means["top5"]:.2f} %'))
    tiles.append(('loss', f'{means["loss"]:.4f}' if finite else 'not finite'))
    return [*tiles, ('images', f'{means["num_examples"]:,}')]


def _of_network(
    config: ConfigDict, run: TrainedModel | None, layers: Sequence[LayerCost], epoch: float | None
) -> list[tuple[str, str]]:
    facts = []
    if run:
        of_epoch = f' (epoch {run.step / epoch:.1f})' if epoch else ''
        facts += [
            ('checkpoint', f'step {run.step:,}{of_epoch}'),
            ('classes', f'{len(run.classes):,}'),
        ]
    if layers:
        cost, size = total_cost(layers), config.dataset.image_size
        facts += [
            ('parameters', f'{cost.parameters:,}'),
            ('multiply-adds', f'{si_format(cost.macs)} at {size}x{size}'),
        ]
    return facts


def _of_starts(starts: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    if not starts:
        return []
    last = starts[-1]
    versions = last.get('versions', {})
    shown = [
        f'{name} {versions[name]}' for name in ('ssanet_jax', 'jax', 'flax') if name in versions
    ]
    devices = f'{last.get("devices")} x {last.get("device_kind")}, {last.get("hosts")} host(s)'
    return [
        ('first start', str(starts[0].get('time'))),
        ('starts', f'{len(starts):,}'),
        ('devices', devices),
        ('versions', ', '.join(shown)),
    ]
