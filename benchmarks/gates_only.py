r"""Inserts SSA into trained networks and trains only its gates, everything, or nothing.

    python benchmarks/gates_only.py --seeds=3 --out=benchmarks/results/gates_only.json

For each seed, a plain ResNet-20 is trained on the first 6,000 images of Fashion-MNIST. SSA with
gates of exactly 1 is inserted, and training continues for a quarter of the epochs:

* gates: only the 18 new parameters are trained;
* all: every parameter is trained;
* plain: every parameter of the network without SSA is trained, the baseline of "all";
* statistics: nothing is trained (a learning rate of 1e-12), but BatchNorms' running statistics
  move, the baseline of "gates".

Then every gate's scale is set to a constant without any training, the question that the paper
ends with. All accuracies are on the 10,000 test images. Every step is a command of this package.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import ROOT, machine, spread, write

from ssanet_jax import weights

SCALES = (-1.0, -0.5, -0.25, 0.0, 0.25, 0.5, 1.0)
RECIPE = [
    '--config=configs/fashion_mnist_ssa20.py',
    '--config.dataset.train_split=train[:6000]',
    '--config.eval_every_steps=1000000',
]
SSA = [
    '--config.model.name=ssa_resnet20',
    '--config.model.ssa.gate_scale=2',
    '--config.model.ssa.zero_init=True',
]
ARMS = {
    'gates': [*SSA, '--config.optimizer.train_only=("*/ssa/*",)'],
    'all': SSA,
    'plain': ['--config.model.name=resnet20'],
    'statistics': SSA,
}


def call(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)


def accuracy(workdir: Path, file: str = 'summary.json') -> float:
    content = json.loads((workdir / file).read_text())
    return content['final']['top1'] if 'final' in content else content['top1']


def train(workdir: Path, *overrides: str) -> float:
    """Trains a run; returns its top-1 in percent."""
    call('main.py', f'--workdir={workdir}', *RECIPE, *overrides)
    return accuracy(workdir)


def to_file(workdir: Path, path: Path) -> Path:
    call(
        *['-m', 'ssanet_jax.tools.convert_torch', f'--workdir={workdir}'],
        *['--checkpoint=latest', '--to=torchvision', f'--out={path}'],
    )
    return path


def with_constant_gates(path: Path, scale: float, folder: Path) -> float:
    """Top-1 in percent of the weights in `path` with every gate's scale set, untrained."""
    arrays = weights.load(path)
    for name in arrays:
        if name.endswith('.ssa.bn.weight'):
            arrays[name] = np.full_like(arrays[name], scale)
    changed = folder / 'constant.safetensors'
    weights.save(changed, arrays)
    call(
        *['main.py', f'--workdir={folder}', '--mode=eval', '--checkpoint=init', *RECIPE, *SSA],
        f'--config.init.weights={changed}',
    )
    return accuracy(folder, 'evaluation.json')


def one_seed(seed: int, epochs: float, folder: Path) -> dict:
    start = train(
        *[folder / 'start', '--config.model.name=resnet20', f'--config.seed={seed}'],
        f'--config.num_epochs={epochs}',
    )
    plain = to_file(folder / 'start', folder / 'plain.safetensors')
    result: dict = {'seed': seed, 'start': start}
    for arm, overrides in ARMS.items():
        learning_rate = {'gates': 0.1, 'statistics': 1e-12}.get(arm, 0.01)
        insert = ['--config.init.attention=insert'] if arm != 'plain' else []
        result[arm] = train(
            *[folder / arm, *overrides, *insert, f'--config.init.weights={plain}'],
            f'--config.seed={seed + 100}',
            f'--config.num_epochs={epochs / 4}',
            f'--config.optimizer.learning_rate={learning_rate}',
            *(['--config.optimizer.weight_decay=0.0'] if arm == 'gates' else []),
        )
        print(seed, arm, result[arm], flush=True)
    calibrated = to_file(folder / 'statistics', folder / 'statistics.safetensors')
    result['constant'] = {
        str(scale): with_constant_gates(calibrated, scale, folder) for scale in SCALES
    }
    tuned = weights.load(to_file(folder / 'gates', folder / 'gates.safetensors'))
    result['gates_after'] = {
        name: float(tuned[name][0])
        for name in sorted(tuned)
        if '.ssa.bn.' in name and name.endswith(('weight', 'bias'))
    }
    return result


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--seeds', type=int, default=3, help='number of networks')
    parser.add_argument('--epochs', type=float, default=8.0, help='of the plain networks')
    parser.add_argument('--out', type=Path, required=True, help='JSON file to write')
    arguments = parser.parse_args()

    runs = []
    for seed in range(arguments.seeds):
        with tempfile.TemporaryDirectory() as folder:
            runs.append(one_seed(seed, arguments.epochs, Path(folder)))
        print(json.dumps(runs[-1]), flush=True)
        result = {
            'command': f'python benchmarks/gates_only.py --seeds={arguments.seeds} '
            f'--epochs={arguments.epochs:g} --out={arguments.out}',
            'machine': machine('jax', 'flax', 'optax'),
            'difference': {
                name: spread([run[arm] - run[other] for run in runs])
                for name, arm, other in (
                    ('gates - statistics', 'gates', 'statistics'),
                    ('all - plain', 'all', 'plain'),
                )
            },
            'runs': runs,
        }
        write(arguments.out, result)  # After every seed: a run takes a quarter of an hour.


if __name__ == '__main__':
    main()
