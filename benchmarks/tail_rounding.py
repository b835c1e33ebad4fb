"""Rounding errors of a tail's training step in both forms, against float64.

    python benchmarks/tail_rounding.py --out=benchmarks/results/tail_rounding.json

Inputs are the output of a ReLU, with deviation 0.7, and the same shifted away from zero (by at
most 100 in bfloat16, which cannot distinguish 10,000 from 10,030). Errors are |error| / |exact| in
the Euclidean norm: of the output, of the worst gradient (of the input, the shortcut or a
parameter, excluding those that are zero in exact arithmetic), and of the update of the running
variance; medians and maxima over seeds.
"""

import argparse
import os
import statistics
from pathlib import Path
from typing import Any

os.environ['JAX_PLATFORMS'] = 'cpu'  # accelerators round float32 products

import jax
import jax.numpy as jnp
import numpy as np
from common import machine, write
from rich.console import Console
from rich.table import Table
from tails import ATTENTION, FORMS

N, SIZE, K, C = 16, 14, 64, 256
MEANS = {'ReLU output': 0.0, 'moved by 10': 10.0, 'by 100': 1e2, 'by 10,000': 1e4}


def draw(seed: int, mean: float) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    h = np.maximum(rng.normal(0.2, 1.0, (N, SIZE, SIZE, K)), 0) + mean
    return {
        'h': h.astype(np.float32),
        'shortcut': rng.normal(size=(N, SIZE, SIZE, C)).astype(np.float32),
        'dy': rng.normal(size=(N, SIZE, SIZE, C)).astype(np.float32),
        'params': {
            'conv3': {'kernel': (rng.normal(size=(1, 1, K, C)) / 8).astype(np.float32)},
            'bn3': {
                'scale': rng.uniform(0.5, 1.5, C).astype(np.float32),
                'bias': rng.normal(size=C).astype(np.float32),
            },
            'ssa': {'bn': {'scale': np.ones(1, np.float32), 'bias': np.zeros(1, np.float32)}},
        },
    }


def step(form: str, attention: str, data: dict[str, Any], dtype: Any) -> dict[str, Any]:
    """Output, gradients and the update of the running variance, as float64 NumPy arrays."""
    module = FORMS[form](C, ATTENTION[attention])
    params = {k: v for k, v in data['params'].items() if k != 'ssa' or attention == 'ssa'}
    stats = {'bn3': {'mean': np.zeros(C, np.float32), 'var': np.zeros(C, np.float32)}}
    if attention == 'ssa':
        stats['ssa'] = {'bn': {'mean': np.zeros(1, np.float32), 'var': np.zeros(1, np.float32)}}
    exact = dtype == jnp.float64
    params, stats = (
        jax.tree.map(lambda a: jnp.asarray(a, jnp.float64 if exact else jnp.float32), tree)
        for tree in (params, stats)
    )
    h, shortcut, dy = (jnp.asarray(data[name], dtype) for name in ('h', 'shortcut', 'dy'))

    def forward(params: Any, h: Any, shortcut: Any) -> Any:
        everything = {'params': params, 'batch_stats': stats}
        return module.apply(everything, h, shortcut, train=True, mutable=['batch_stats'])

    @jax.jit
    def both(params: Any, h: Any, shortcut: Any, dy: Any) -> Any:
        y, pullback, updates = jax.vjp(forward, params, h, shortcut, has_aux=True)
        return y, pullback(dy), updates['batch_stats']['bn3']['var']

    y, gradients, var = both(params, h, shortcut, dy)
    result = {'output': y, 'gradients': gradients, 'running variance': var}
    return jax.tree.map(lambda a: np.asarray(a, np.float64), result)


def error(value: np.ndarray, exact: np.ndarray) -> float:
    return float(np.linalg.norm(value - exact) / np.linalg.norm(exact))


def errors(value: dict[str, Any], exact: dict[str, Any]) -> dict[str, float]:
    pairs = zip(
        jax.tree.leaves(value['gradients']), jax.tree.leaves(exact['gradients']), strict=True
    )
    return {
        'output': error(value['output'], exact['output']),
        'worst gradient': max(error(v, e) for v, e in pairs if np.linalg.norm(e) > 1e-6),
        'running variance': error(value['running variance'], exact['running variance']),
    }


def measure(attention: str, regime: str, dtype: str, seeds: int) -> list[dict[str, Any]]:
    measured: dict[str, list[dict[str, float]]] = {form: [] for form in FORMS}
    for seed in range(seeds):
        data = draw(seed, MEANS[regime])
        if dtype == 'bfloat16':  # The same numbers in every precision.
            rounded = {k: jnp.asarray(data[k], jnp.bfloat16) for k in ('h', 'shortcut', 'dy')}
            data |= {k: np.asarray(v, np.float32) for k, v in rounded.items()}
        with jax.enable_x64(True):
            exact = step('plain', attention, data, jnp.float64)
        for form in FORMS:
            measured[form].append(errors(step(form, attention, data, jnp.dtype(dtype)), exact))
    return [
        {
            'attention': attention,
            'regime': regime,
            'dtype': dtype,
            'form': form,
            **{
                name: {
                    'median': statistics.median(e[name] for e in measured[form]),
                    'largest': max(e[name] for e in measured[form]),
                }
                for name in measured[form][0]
            },
        }
        for form in FORMS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--seeds', type=int, default=5)
    parser.add_argument('--out', type=Path, help='JSON file to write')
    arguments = parser.parse_args()
    results = []
    for dtype in ('float32', 'bfloat16'):
        for attention in ('none', 'ssa'):
            for regime in list(MEANS)[: 3 if dtype == 'bfloat16' else 4]:
                results += measure(attention, regime, dtype, arguments.seeds)
    table = Table(title='Errors relative to float64, medians', title_justify='left')
    names = ('output', 'worst gradient', 'running variance')
    for column in ('dtype', 'attention', 'input', 'form', *names):
        table.add_column(column)
    for r in results:
        row = [f'{r[name]["median"]:.1e}' for name in names]
        table.add_row(r['dtype'], r['attention'], r['regime'], r['form'], *row)
    Console(width=120).print(table)
    if arguments.out:
        environment = machine('jax', 'jaxlib', 'flax')
        write(arguments.out, {'machine': environment, 'seeds': arguments.seeds, 'results': results})


if __name__ == '__main__':
    main()
