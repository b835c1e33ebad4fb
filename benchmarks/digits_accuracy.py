r"""Trains a recipe once for each of several seeds and records accuracy and time.

    python benchmarks/digits_accuracy.py --seeds=5 --out=benchmarks/results/digits_accuracy.json

Each run is a `python main.py` with a new process and folder, so its time includes importing,
compiling, evaluation and checkpoints.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import ROOT, machine, write


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
    parser.add_argument('--config', default='configs/digits_ssa20.py')
    parser.add_argument('--seeds', type=int, default=5, help='number of runs')
    parser.add_argument('--out', type=Path, required=True, help='JSON file to write')
    parser.add_argument('overrides', nargs='*', help='passed on, after --: --config.NAME=VALUE')
    arguments = parser.parse_args()

    runs = []
    for seed in range(arguments.seeds):
        runs.append(run(arguments.config, seed, arguments.overrides))
        print(json.dumps(runs[-1]), flush=True)
    accuracies = [r['final_top1'] for r in runs]
    result = {
        'config': arguments.config,
        'overrides': arguments.overrides,
        'machine': machine('jax', 'flax', 'optax'),
        'mean_final_top1': statistics.mean(accuracies),
        'lowest_final_top1': min(accuracies),
        'highest_final_top1': max(accuracies),
        'runs': runs,
    }
    write(arguments.out, result)


if __name__ == '__main__':
    main()
