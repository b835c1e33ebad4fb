"""Draws the memory traffic of both forms of a tail, one block per pass over an array.

    python benchmarks/tail_picture.py --out=docs/tail_traffic.png

Taken from the compiled program of a training step of 32 images, 56x56 pixels, 64 -> 256
channels, float32: the operations after fusion, each with the arrays that it reads and writes.
"""

import argparse
import os
from pathlib import Path

os.environ['JAX_PLATFORMS'] = 'cpu'  # the picture shows the CPU's program

import matplotlib as mpl
import matplotlib.pyplot as plt
from tail_traffic import compile_step

from ssanet_jax.analysis.hlo import operations

SHAPE = (32, 56, 64, 256)  # N, H, K, C
ROWS = {
    'ResNet\nplain': ('plain', 'none'),
    'ResNet\nfolded': ('folded', 'none'),
    'SSA\nplain': ('plain', 'ssa'),
    'SSA\nfolded': ('folded', 'ssa'),
}
COLORS = {'forward': '#2f6690', 'backward': '#d9822b'}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='PNG file to write')
    arguments = parser.parse_args()
    mpl.use('Agg')
    figure, axes = plt.subplots(figsize=(10, 3.6), layout='constrained')
    n, height, k, c = SHAPE
    for row, (label, (form, attention)) in enumerate(ROWS.items()):
        start = 0.0
        drawn = operations(compile_step(form, attention, SHAPE))
        for name, moved in sorted(drawn, key=lambda o: 'transpose(jvp' in o.name):
            phase = 'backward' if 'transpose(jvp' in name else 'forward'
            axes.barh(
                row, moved / 1e9, left=start, height=0.62, color=COLORS[phase],
                edgecolor='white', linewidth=0.8,
            )  # fmt: skip
            start += moved / 1e9
        axes.text(start + 0.03, row, f'{start:.2f} GB', va='center', fontsize=11)
        print(f'{label!r}: {start:.2f} GB in {len(drawn)} operations')
    axes.set_yticks(range(len(ROWS)), ROWS, fontsize=11)
    axes.invert_yaxis()
    axes.set_xlim(0, axes.get_xlim()[1] * 1.08)
    axes.set_xlabel('read and written in one training step of one tail, GB')
    axes.set_title(
        f'One block per pass over memory (CPU, {n} x {height} x {height}, {k} -> {c} channels)',
        fontsize=11, loc='left',
    )  # fmt: skip
    handles = [mpl.patches.Patch(color=color, label=phase) for phase, color in COLORS.items()]
    axes.legend(handles=handles, frameon=False, loc='lower right')
    axes.spines[['top', 'right']].set_visible(False)
    figure.savefig(arguments.out, dpi=150)
    print(f'Written to {arguments.out}')


if __name__ == '__main__':
    main()
