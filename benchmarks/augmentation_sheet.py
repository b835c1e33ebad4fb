"""Draws each operation of augmentation, and crops as policies augment them.

    python benchmarks/augmentation_sheet.py --out=docs/augmentation.jpg

From a photograph of scikit-learn.
"""

import argparse
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib import pyplot
from PIL import Image
from sklearn.datasets import load_sample_image

from ssanet_jax.config import base
from ssanet_jax.data.augmentation import augment
from ssanet_jax.data.augmentation.operations import OPERATIONS, Sampling

SIZE, COLUMNS = 128, 8
VALUES = {  # at RandAugment's magnitude 7
    'auto_contrast': 0, 'equalize': 0, 'invert': 0, 'posterize': 2, 'solarize': 77,
    'solarize_add': 77, 'brightness': 1.63, 'contrast': 1.63, 'color': 1.63, 'sharpness': 1.63,
    'hue': 0.1, 'rotate': 21, 'shear_x': 0.21, 'shear_y': 0.21, 'translate_x_relative': 0.315,
    'translate_y_relative': 0.315,
}  # fmt: skip
POLICIES = {
    'trivial_wide': {'augment': 'trivial_wide'},
    'rand-m7-mstd0.5-inc1': {'augment': 'rand-m7-mstd0.5-inc1'},
    'color_jitter': {'color_jitter': (0.4, 0.4, 0.4, 0.1)},
    'random_erasing': {'random_erasing': 1.0},
    'cutout': {'cutout': SIZE // 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='JPEG file to write')
    path = parser.parse_args().out
    whole = Image.fromarray(load_sample_image('china.jpg'))
    photo = np.asarray(whole.resize((SIZE, SIZE), box=(0, 0, 427, 427)))
    cells = [*operations(photo), *policies(photo)]
    mpl.use('Agg')
    rows = -(-len(cells) // COLUMNS)
    size = (1.3 * COLUMNS, 1.5 * rows)
    figure, axes = pyplot.subplots(rows, COLUMNS, figsize=size, layout='constrained')
    for ax in axes.flat:
        ax.axis('off')
    for ax, (title, image) in zip(axes.flat, cells, strict=False):
        ax.imshow(image)
        ax.set_title(title, fontsize=7)
    figure.savefig(path, dpi=100, pil_kwargs={'quality': 85})
    print(f'Written to {path}')


def operations(photo: np.ndarray) -> list[tuple[str, np.ndarray]]:
    sampling = Sampling(Image.Resampling.BICUBIC, (124, 116, 104))
    return [
        (f'{name}\n{value or ""}', OPERATIONS[name](photo, value, sampling))
        for name, value in VALUES.items()
    ]


def policies(photo: np.ndarray) -> list[tuple[str, np.ndarray]]:
    cells = []
    for name, settings in POLICIES.items():
        dataset = base().dataset
        dataset.update(settings)
        crops = np.stack([photo] * COLUMNS)
        augment(crops, np.stack([np.zeros(COLUMNS), np.arange(COLUMNS)], 1).astype(int), dataset, 0)
        cells += [(name if not number else '', crop) for number, crop in enumerate(crops)]
    return cells


if __name__ == '__main__':
    main()
