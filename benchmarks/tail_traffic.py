"""Compares compilers' counts of both forms of a tail's training step over many shapes.

    python benchmarks/tail_traffic.py --out=benchmarks/results/tail_traffic.json

For each shape, lists the form that 'auto' chooses, the memory traffic on this machine's CPU, in
float32, and on an H100, and the estimated cycles on a TPU v5e. The last two are compiled without
the device, in bfloat16, see targets.py. A ReLU feeds the tail and a 1x1 convolution reads its
output, as in a network. Results in the file from the same versions and commit are kept, so an
interrupted run can be resumed.
"""

import argparse
import json
import math
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from common import machine, write
from rich.console import Console
from rich.table import Table
from tails import ATTENTION, FORMS
from targets import compile_apart, compile_for, counts

from ssanet_jax import layers
from ssanet_jax.models import folded_tail

DTYPES = {'cpu': jnp.float32, 'v5e': jnp.bfloat16, 'h100': jnp.bfloat16}
COUNTS = {'cpu': 'bytes', 'v5e': 'cycles', 'h100': 'bytes'}
SHAPES = [  # N, H, K, C; SE and several groups of SSA are counted on the first six.
    (32, 56, 64, 256), (32, 28, 128, 512), (8, 14, 256, 1024), (32, 14, 256, 1024),
    (8, 7, 512, 2048), (32, 7, 512, 2048), (128, 7, 512, 2048), (32, 28, 64, 64),
    (32, 28, 64, 128),
]  # fmt: skip


def compile_step(
    form: str, attention: str, shape: tuple[int, int, int, int], target: str = 'cpu'
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
            return (layers.pointwise_conv(y, kernel), y), updates

        outputs, pullback, updates = jax.vjp(
            forward, variables['params'], u, shortcut, has_aux=True
        )
        return outputs, pullback((dnext, dy)), updates

    def shaped(*dimensions: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(dimensions, DTYPES[target])

    narrow, wide = shaped(n, size, size, k), shaped(n, size, size, c)
    arguments = variables, narrow, wide, shaped(c, k), narrow, wide
    return compile_for(target, jax.jit(step), arguments)


def count(target: str, form: str, attention: str, shape: str) -> dict[str, Any]:
    """The counts of one step, compiled in this process; shape is 'NxHxKxC'."""
    n, size, k, c = map(int, shape.split('x'))
    return counts(compile_step(form, attention, (n, size, k, c), target))


def chosen(attention: str, shape: tuple[int, int, int, int]) -> str:
    """The form that 'auto' chooses."""
    n, size, k, c = shape
    fold = folded_tail.chooses_fold(
        'auto', (n, size, size, k), c, norm=layers.BatchNorm,
        attention=ATTENTION[attention], train=True,
    )  # fmt: skip
    return 'folded' if fold else 'plain'


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--targets', nargs='+', default=list(DTYPES), choices=DTYPES)
    parser.add_argument('--out', type=Path, help='JSON file to write or complete')
    parser.add_argument('--one', nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        print(json.dumps(count(*arguments.one)))
        return
    packages = ('jax', 'jaxlib', 'flax', 'libtpu', 'jax-cuda13-plugin')
    result: dict[str, Any] = {'machine': machine(*packages), 'results': {}}
    if arguments.out and arguments.out.exists():
        before = json.loads(arguments.out.read_text())
        if before['machine'] == result['machine']:
            result = before
    table = Table(title='Training step of a tail', title_justify='left')
    for column in ('attention', 'N x H x K x C', 'target', 'plain', 'folded', 'auto'):
        table.add_column(column)
    for attention in ATTENTION:
        for shape in SHAPES if attention in ('none', 'ssa') else SHAPES[:6]:
            text = 'x'.join(map(str, shape))
            of = result['results'].setdefault(f'{attention}, {text}', {})
            of['auto'] = chosen(attention, shape)
            for target in arguments.targets:
                if target not in of:
                    of[target] = {
                        form: compile_apart(__file__, target, form, attention, text)
                        for form in FORMS
                    }
                    if arguments.out:
                        write(arguments.out, result)
                cells = [
                    f'{of[target][form].get(COUNTS[target], math.nan) / 1e6:,.1f}' for form in FORMS
                ]
                table.add_row(attention, text, target, *cells, of['auto'])
                print(attention, text, target, *cells, flush=True)
    Console(width=120).print(table)


if __name__ == '__main__':
    main()
