"""Draws an augmented batch with its labels, as the network sees it.

    ssanet show_batch --config=digits_ssa20 --out=batch.png

--split=eval draws the first evaluation images instead, which are not augmented.
"""

import math
from pathlib import Path

import numpy as np
from absl import flags
from matplotlib.figure import Figure

from ssanet_jax import data, runtime
from ssanet_jax.errors import ConfigError
from ssanet_jax.output import printable
from ssanet_jax.tools import cli
from ssanet_jax.trained.glyphs import legible

FLAGS = flags.FLAGS


def main() -> None:
    config = cli.recipe()
    if FLAGS.split == 'eval' and FLAGS['step'].present:
        raise ConfigError('--step has no effect with --split=eval; omit it.')
    runtime.use_cpu()  # Images need no accelerator.
    info = data.dataset_info(config)
    if FLAGS.split == 'train':
        batch = next(data.train_batches(config, start_step=FLAGS.step))
        title = f'{config.dataset.name}, training batch {FLAGS.step}'
    else:
        batch = next(data.eval_batches(config, config.dataset.eval_split))
        title = f'{config.dataset.name}, first images of {config.dataset.eval_split}'
    images = batch['image'][batch['mask']][: FLAGS.images]
    names = [info.class_names[label] if label >= 0 else 'bad' for label in batch['label']]
    title += f', {images.shape[1]} x {images.shape[2]} pixels'
    with cli.writing_out(ValueError):
        draw(images, names, title, FLAGS.out)
    print(f'Written to {FLAGS.out}')


def draw(images: np.ndarray, names: list[str], title: str, path: str | Path) -> None:
    """Writes a grid of images uint8 [n, H, W, 3] with the names of their classes."""
    columns = math.ceil(math.sqrt(2 * len(images)))
    rows = math.ceil(len(images) / columns)
    size = (1.3 * columns, 1.5 * rows + 0.4)
    figure = Figure(figsize=size, layout='constrained')
    axes = figure.subplots(rows, columns, squeeze=False)
    for ax in axes.flat:
        ax.axis('off')
    for ax, image, name in zip(axes.flat, images, names, strict=False):
        ax.imshow(image, interpolation='nearest')
        short = printable(name if len(name) < 17 else f'{name[:15]}…')
        drawn, families = legible(short)
        ax.set_title(drawn, fontsize=8, fontfamily=families, parse_math=False)
    figure.suptitle(title, fontsize=10, x=0.01, ha='left', parse_math=False)
    figure.savefig(path, dpi=120)


def define_flags() -> None:
    cli.define_config()
    flags.DEFINE_string('out', None, 'PNG file to write.', required=True)
    flags.DEFINE_integer('step', 0, 'Number of the training batch, from 0.', lower_bound=0)
    flags.DEFINE_enum('split', 'train', ['train', 'eval'], 'train: augmented; eval: not.')
    flags.DEFINE_integer('images', 32, 'Number of images, at most.', lower_bound=1)


if __name__ == '__main__':
    cli.run(main, define_flags)
