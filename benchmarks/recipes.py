r"""Compares modern recipes with the plain ones at equal steps, on digits or Fashion-MNIST.

    python benchmarks/recipes.py --out=benchmarks/results/recipes.json
    python benchmarks/recipes.py --fashion_mnist --out=benchmarks/results/recipes_fashion_mnist.json

Both recipes of a dataset have the same batches and epochs. They take turns, seed by seed; each run
is a `python main.py` of its own. A difference is that of the final accuracies of one seed, of
averaged weights where the recipe has them.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import ROOT, machine, spread, write

RECIPES = {
    'digits': ('digits_ssa20', 'digits_ssa20_modern'),
    'fashion_mnist': ('fashion_mnist_ssa20', 'fashion_mnist_ssa20_modern'),
}


def compare(names: tuple[str, ...], seeds: int, overrides: list[str]) -> dict[str, Any]:
    """Trains each recipe with each seed, in turns; the first recipe is the plain one."""
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    for seed in range(seeds):
        for name in names if seed % 2 == 0 else names[::-1]:
            runs[name].append(run(f'configs/{name}.py', seed, overrides))
            print(name, json.dumps(runs[name][-1]), flush=True)
    top1 = {name: [one['final_top1'] for one in runs[name]] for name in names}
    plain, *others = names
    minus_plain = {
        name: [a - b for a, b in zip(top1[name], top1[plain], strict=True)] for name in others
    }
    return {
        'final_top1': {name: spread(values) for name, values in top1.items()},
        'minus_plain': {name: spread(values) for name, values in minus_plain.items()},
        'runs': runs,
    }


def run(config: str, seed: int, overrides: list[str]) -> dict:
    """Trains with one seed; returns the seed, accuracies and seconds."""
    with tempfile.TemporaryDirectory() as workdir:
        command = [
            sys.executable, 'main.py', f'--config={config}', f'--workdir={workdir}',
            f'--config.seed={seed}', '--noreport', *overrides,
        ]  # fmt: skip
        start = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        seconds = time.perf_counter() - start
        summary = json.loads((Path(workdir) / 'summary.json').read_text())
    return {
        'seed': seed,
        'final_top1': summary['final']['top1'],
        'best_top1': summary['best']['top1'],
        'images_per_second': summary['images_per_second'],
        'total_seconds': round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--fashion_mnist', action='store_true', help='in place of digits; hours')
    parser.add_argument('--seeds', type=int, default=3, help='runs of each recipe')
    parser.add_argument('--out', type=Path, required=True, help='JSON file to write')
    parser.add_argument('overrides', nargs='*', help='of both, after --: --config.NAME=VALUE')
    arguments = parser.parse_args()

    names = RECIPES['fashion_mnist' if arguments.fashion_mnist else 'digits']
    result = {
        'recipes': names,
        'overrides': arguments.overrides,
        'machine': machine('jax', 'flax', 'optax'),
    }
    write(arguments.out, result | compare(names, arguments.seeds, arguments.overrides))


if __name__ == '__main__':
    main()
