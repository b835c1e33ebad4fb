"""Lists the memory traffic of a training step by part of the network.

    python benchmarks/step_costs.py --model=ssa_resnet50 --out=benchmarks/results/step_costs.json

Operations of the program compiled for 32 images at 224 pixels, float32, on one device.
"""

import argparse
import collections
import re
from pathlib import Path

import jax
from common import machine, write
from rich.console import Console
from rich.table import Table

from ssanet_jax.analysis.hlo import operations
from ssanet_jax.config import base
from ssanet_jax.training import parallel, trainer_setup

PARTS = {  # The first pattern that matches an operation's name decides.
    'tail, backward': r'transpose\(jvp\(ResNet\)\).*FoldedTail',
    'tail, forward': r'FoldedTail',
    'projection shortcuts': r'downsample',
    'conv1 and bn1 of blocks': r'layer.*(conv1|bn1)',
    'conv2 and bn2 of blocks': r'layer.*(conv2|bn2)',
    'ReLU of blocks': r'layer.*(relu|select_n)',
    'stem: max-pool': r'ResNet\.features/(reduce_window|cond)',
    'stem: convolution, BatchNorm, ReLU': r'_stem',
    'classifier and loss': r'fc|jvp\(\)/|reduce_sum|exp|log|take_along',
    'optimizer': r'jit\(train\)/(add|mul|sub|div)',
    'copies and transposes of operands': r'^$',
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--model', default='ssa_resnet50')
    parser.add_argument('--out', type=Path, help='JSON file to write')
    arguments = parser.parse_args()
    config = base()
    config.model.name, config.batch_size = arguments.model, 32
    setup = trainer_setup.build(
        config, num_classes=1000, num_train_examples=1_281_167, mesh=parallel.local_mesh(1)
    )
    batch = parallel.batch_shapes(32, 224, setup.mesh)
    shapes = jax.eval_shape(setup.init), batch, jax.eval_shape(setup.zero_metrics)
    moved: collections.Counter[str] = collections.Counter()
    for operation in operations(setup.train_step.lower(*shapes).compile()):
        part = next((p for p, x in PARTS.items() if re.search(x, operation.name)), 'others')
        moved[part] += operation.bytes_accessed
    total = sum(moved.values())
    table = Table(title=f'Training step of {arguments.model}: {total / 1e9:.2f} GB')
    for column in ('part', 'GB', 'share'):
        table.add_column(column, justify='left' if column == 'part' else 'right')
    for part, size in moved.most_common():
        table.add_row(part, f'{size / 1e9:.2f}', f'{100 * size / total:.1f} %')
    Console(width=100).print(table)
    if arguments.out:
        result = {'machine': machine('jax', 'jaxlib', 'flax'), 'model': arguments.model}
        write(arguments.out, {**result, 'bytes': dict(moved.most_common())})


if __name__ == '__main__':
    main()
