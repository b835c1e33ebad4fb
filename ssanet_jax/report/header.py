"""The header of a report: title, results and facts about the run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from ssanet_jax.analysis.macs import LayerCost, total_cost
from ssanet_jax.config.sizes import eval_size
from ssanet_jax.report.evaluation import Evaluation
from ssanet_jax.tables import si_format
from ssanet_jax.trained.load import TrainedModel

_VALUES = ('top1', 'top5', 'loss', 'num_examples')


class Header(NamedTuple):
    """The top of the page.

    Attributes:
      title: network and dataset.
      tiles: (name, value) of the main results.
      facts: (name, value) of everything else.
      source: origin of the results.
    """

    title: str
    tiles: list[tuple[str, str]]
    facts: list[tuple[str, str]]
    source: str


def make_header(
    config: ConfigDict,
    trained: TrainedModel | None,
    evaluation: Evaluation | None,
    lines: Sequence[Mapping[str, Any]],
    layers: Sequence[LayerCost],
    starts: Sequence[Mapping[str, Any]],
    steps_per_epoch: float | None,
    *,
    raw: bool = False,
) -> Header:
    """Collects the header from what is known of the run.

    Args:
      config: of the run.
      trained: the checkpoint, if there is one.
      evaluation: of the checkpoint, if its dataset is available.
      lines: of metrics.jsonl.
      layers: from `layer_costs`; empty if there is no checkpoint.
      starts: lines of starts.jsonl.
      steps_per_epoch: if known.
      raw: whether the checkpoint is of the weights without averaging.
    """
    step = trained.step if trained else None
    logged = _logged(lines, step, raw)
    means: Mapping[str, Any] | None = evaluation.means() if evaluation else None
    source = f'Evaluated for this page on {config.dataset.eval_split!r} of {config.dataset.name}.'
    if means is None and logged:
        means, source = logged[-1], 'Results as logged by the run at this step.'
    elif means is None:
        source = ''
    elif logged:
        source += ' ' + _comparison(means, logged[-1])
    title = f'{config.model.name} on {config.dataset.name}'
    tiles = _tiles(means, len(trained.classes) if trained else 0) if means else []
    facts = [*_network_facts(config, trained, layers, steps_per_epoch), *_start_facts(starts)]
    return Header(title, tiles, facts, source)


def _logged(
    lines: Sequence[Mapping[str, Any]], step: int | None, raw: bool
) -> list[dict[str, Any]]:
    """The evaluations of a step, or those of its raw weights."""
    keys = {name: f'raw/{name}' if raw and name != 'num_examples' else name for name in _VALUES}
    return [
        {name: line[key] for name, key in keys.items()}
        for line in lines
        if line['split'] == 'eval' and line['step'] == step and line.keys() >= {*keys.values()}
    ]


def _comparison(means: Mapping[str, Any], logged: Mapping[str, Any]) -> str:
    pairs = [(means[name], logged[name]) for name in _VALUES]
    if all(
        math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-3) or (math.isnan(a) and math.isnan(b))
        for a, b in pairs
    ):
        return 'The run logged the same results at this step.'
    return (
        f'The run logged {logged["top1"]:.2f} % and a loss of {logged["loss"]:.4f} on '
        f'{logged["num_examples"]:,} images at this step; the dataset, package versions or device '
        'must have changed.'
    )


def _tiles(means: Mapping[str, Any], num_classes: int) -> list[tuple[str, str]]:
    finite = math.isfinite(means['loss'])
    tiles = [('top-1', f'{means["top1"]:.2f} %')]
    if num_classes > 5:  # otherwise top-5 is trivially 100%
        tiles.append(('top-5', f'{means["top5"]:.2f} %'))
    tiles.append(('loss', f'{means["loss"]:.4f}' if finite else 'not finite'))
    return [*tiles, ('images', f'{means["num_examples"]:,}')]


def _network_facts(
    config: ConfigDict,
    trained: TrainedModel | None,
    layers: Sequence[LayerCost],
    steps_per_epoch: float | None,
) -> list[tuple[str, str]]:
    facts = []
    if trained:
        epoch = f' (epoch {trained.step / steps_per_epoch:.1f})' if steps_per_epoch else ''
        facts += [
            ('checkpoint', f'step {trained.step:,}{epoch}'),
            ('classes', f'{len(trained.classes):,}'),
        ]
    if layers:
        cost, size = total_cost(layers), eval_size(config.dataset)
        facts += [
            ('parameters', f'{cost.parameters:,}'),
            ('MACs', f'{si_format(cost.macs)} at {size}x{size}'),
        ]
    return facts


def _start_facts(starts: Sequence[Mapping[str, Any]]) -> list[tuple[str, str]]:
    if not starts:
        return []
    last = starts[-1]
    versions = last.get('versions', {})
    main = [
        f'{name} {versions[name]}' for name in ('ssanet_jax', 'jax', 'flax') if name in versions
    ]
    devices, hosts = f'{last.get("devices")} x {last.get("device_kind")}', last.get('hosts')
    return [
        ('first start', str(starts[0].get('time'))),
        ('starts', f'{len(starts):,}'),
        ('devices', devices if hosts == 1 else f'{devices} on {hosts} hosts'),
        ('versions', ', '.join(main)),
    ]
