"""Writes the tables of docs/models.md: counted sizes and measured results.

    python benchmarks/model_tables.py

Replaces the text between `<!-- table: NAME -->` and `<!-- end -->`. Takes half a minute.
"""

import contextlib
import io
import json
import os
from typing import Any

os.environ.setdefault('JAX_PLATFORMS', 'cpu')

from common import ROOT, fill, format_machine, markdown, rates
from paper_tables import paper_tables

from ssanet_jax import create_model
from ssanet_jax.analysis.macs import model_cost
from ssanet_jax.attention import ATTENTION
from ssanet_jax.layers import unwrap_partial
from ssanet_jax.models.registry import NETWORKS
from ssanet_jax.tables import show


def networks() -> str:
    """The table of all networks with their cost at 224 or 32 pixels."""
    rows = []
    for name, make in NETWORKS.items():
        thin = create_model(name, num_classes=10).stem == 'cifar'
        size, classes = (32, 10) if thin else (224, 1000)
        cost = model_cost(create_model(name, num_classes=classes), size)
        kind = unwrap_partial(make).__name__
        billions = f'{cost.macs / 1e9:.3f} G'
        rows.append((f'`{name}`', kind, f'{size}, {classes}', f'{cost.parameters:,}', billions))
    header = ['network', 'class', 'pixels, classes', 'parameters', 'MACs']
    return markdown(header, rows)


def attention() -> str:
    """The cost that each block adds to ResNet-50 at 224."""
    plain = model_cost(create_model('resnet50', num_classes=1000), 224)
    rows = []
    for kind, block in ATTENTION.items():
        cost = model_cost(create_model(f'{kind}_resnet50', num_classes=1000), 224)
        module = unwrap_partial(block).__module__.rpartition('.')[2]
        link = f'[{unwrap_partial(block).__name__}](../ssanet_jax/attention/{module}.py)'
        rows.append(
            (
                f'`{kind}`',
                link,
                f'{cost.parameters - plain.parameters:,}',
                f'{(cost.matmul_macs - plain.matmul_macs) / 1e6:.2f} M',
                f'{cost.attention_elementwise / 1e6:.2f} M',
            )
        )
    header = ['name', 'block', 'parameters', 'MACs', 'elementwise']
    return markdown(header, rows)


def paper() -> str:
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        show(paper_tables(), 'markdown')
    return printed.getvalue().strip()


def parity() -> str:
    result = json.loads((ROOT / 'benchmarks/results/torch_parity.json').read_text())
    rows = [
        (
            f'`{r["network"]}`',
            r['library'],
            f'{r["largest_difference_of_logits"]:.1e}',
            f'all {r["arrays"]} equal' if r['arrays_equal'] else 'differ',
            'equal' if r['logits_equal'] else 'differ',
        )
        for r in result['results']
    ]
    header = ['network', 'library', 'relative logit difference']
    header += ['arrays, round trip', 'logits, round trip']
    return f'{markdown(header, rows)}\n\n{source(result, "torch_parity.json")}'


def gates_only() -> str:
    result = json.loads((ROOT / 'benchmarks/results/gates_only.json').read_text())
    runs = result['runs']
    names = {
        'start': 'plain, as trained',
        'statistics': 'SSA inserted, only running statistics updated',
        'gates': 'SSA inserted, its 18 parameters trained',
        'plain': 'plain, all parameters trained further',
        'all': 'SSA inserted, all parameters trained further',
    }
    rows = [[text, *(f'{run[name]:.2f}' for run in runs)] for name, text in names.items()]
    rows += [
        [f'every gate 2 sigmoid({scale} BatchNorm(s)), nothing trained', *values]
        for scale in runs[0]['constant']
        if (values := [f'{run["constant"][scale]:.2f}' for run in runs])
    ]
    rows += [[name, rates(values), *[''] * (len(runs) - 1)] for name, values in differences(result)]
    table = markdown(['top-1, %', *(f'seed {run["seed"]}' for run in runs)], rows)
    return f'{table}\n\n{source(result, "gates_only.json")}'


def source(result: dict[str, Any], file: str) -> str:
    link = f'[{file}](../benchmarks/results/{file})'
    return f'{link}, `{result["command"]}`: {format_machine(result["machine"])}.'


def differences(result: dict[str, Any]) -> list[tuple[str, dict[str, float]]]:
    return [(f'{name}, median (lowest to highest)', v) for name, v in result['difference'].items()]


def main() -> None:
    tables = {
        'networks': networks(),
        'attention': attention(),
        'paper': paper(),
        'parity': parity(),
        'gates only': gates_only(),
    }
    fill(ROOT / 'docs' / 'models.md', tables)


if __name__ == '__main__':
    main()
