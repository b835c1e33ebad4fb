"""Compares XLA's counts of both forms of a tail's training step over many shapes.

    python benchmarks/tail_traffic.py --out=benchmarks/results/tail_traffic.json

For each shape, lists the differences in bytes and operations on this machine, and the form that
'auto' chooses. A ReLU feeds the tail and a 1x1 convolution reads its output, as in a network.
"""

import argparse
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from common import machine, write
from rich.console import Console
from rich.table import Table
from tails import ATTENTION, FORMS

from ssanet_jax import layers
from ssanet_jax.analysis.hlo import program_cost
from ssanet_jax.models import folded_tail

SHAPES = [  # N, H, K, C
    (1, 56, 64, 256), (8, 56, 64, 256), (32, 56, 64, 256), (32, 28, 128, 512),
    (8, 14, 256, 1024), (32, 14, 256, 1024), (8, 7, 512, 2048), (32, 7, 512, 2048),
    (128, 7, 512, 2048), (32, 28, 64, 64), (32, 28, 64, 128), (32, 28, 64, 512),
]  # fmt: skip


def compile_step(
    form: str, attention: str, shape: tuple[int, int, int, int]
) -> jax.stages.Compiled:
    """The program of a training step, between a ReLU and the next 1x1 convolution."""
    n, size, k, c = shape
    module = FORMS[form](c, ATTENTION[attention])
    h, shortcut = jnp.zeros((1, size, size, k)), jnp.zeros((1, size, size, c))
    variables = jax.eval_shape(lambda: module.init(jax.random.key(0), h, shortcut, train=False))

    def step(variables: Any, u: Any, shortcut: Any, kernel: Any, dnext: Any, dy: Any) -> Any:
        def forward(params: Any, u: Any, shortcut: Any) -> Any:
            everything = {'params': params, 'batch_stats': variables['batch_stats']}
            h = jax.nn.relu(2 * u - 0.1)
            y, updates = module.apply(everything, h, shortcut, train=True, mutable=['batch_stats'])
            return (y.reshape(-1, c) @ kernel, y), updates

        outputs, pullback, updates = jax.vjp(
            forward, variables['params'], u, shortcut, has_aux=True
        )
        return outputs, pullback((dnext, dy)), updates

    def shaped(*dimensions: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(dimensions, jnp.float32)

    wide = shaped(n, size, size, c)
    arguments = (shaped(n, size, size, k), wide, shaped(c, k), shaped(n * size * size, k), wide)
    return jax.jit(step).lower(variables, *arguments).compile()


def compare(attention: str, shape: tuple[int, int, int, int]) -> dict[str, Any]:
    n, size, k, c = shape
    plain, folded = (
        program_cost(compile_step(form, attention, shape)) for form in ('plain', 'folded')
    )
    chosen = folded_tail.chooses_fold(
        'auto', (n, size, size, k), c, norm=layers.BatchNorm,
        attention=ATTENTION[attention], train=True,
    )  # fmt: skip
    return {
        'attention': attention,
        'shape': shape,
        'plain': plain._asdict(),
        'folded': folded._asdict(),
        'saved_bytes': plain.bytes_accessed - folded.bytes_accessed,
        'extra_operations': folded.flops - plain.flops,
        'chosen': 'folded' if chosen else 'plain',
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, help='JSON file to write')
    arguments = parser.parse_args()
    results = []
    for attention in ATTENTION:
        for shape in SHAPES if 'groups' not in attention else SHAPES[2:6]:
            results.append(compare(attention, shape))
            print(f'{attention}, {shape} counted', flush=True)
    table = Table(title='Training step of a tail, float32', title_justify='left')
    for column in ('attention', 'N, H, K, C', 'plain', 'folded', 'saved', 'chosen'):
        table.add_column(column)
    for r in results:
        sizes = [r['plain']['bytes_accessed'], r['folded']['bytes_accessed'], r['saved_bytes']]
        row = [f'{size / 1e6:,.0f} MB' for size in sizes]
        table.add_row(r['attention'], ', '.join(map(str, r['shape'])), *row, r['chosen'])
    Console(width=120).print(table)
    if arguments.out:
        write(arguments.out, {'machine': machine('jax', 'jaxlib', 'flax'), 'results': results})


if __name__ == '__main__':
    main()
