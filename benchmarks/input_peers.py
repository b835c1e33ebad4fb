"""Other input pipelines, for comparison in `input.py`."""

import functools
import importlib.util
import io
import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import photographs
import tensorflow as tf
from ml_collections import ConfigDict
from PIL import Image

from ssanet_jax.config import base
from ssanet_jax.data.builders import find_builder
from ssanet_jax.data.decoding.crops import crop_windows
from ssanet_jax.data.sources import num_cores

Images = Iterator[np.ndarray]  # batches


@functools.cache
def stored_files() -> list[bytes]:
    return [photographs.encoded(number) for number in range(256)]


def decode_alone(dataset: ConfigDict, rows: int) -> Images:
    """Decodes and crops in threads, without queue or batches; the windows are drawn beforehand."""
    files = stored_files()
    windows = [draw_window(dataset, number) for number in range(1024)]
    stored, drawn = tf.constant(files), tf.constant(windows)

    def decode(number: tf.Tensor) -> tf.Tensor:
        image = tf.io.decode_and_crop_jpeg(
            stored[number % len(files)], drawn[number % len(windows)], channels=3,
            fancy_upscaling=False, dct_method='INTEGER_FAST',
        )  # fmt: skip
        return image[0, 0]

    options = tf.data.Options()
    options.threading.private_threadpool_size = cores = num_cores()
    options.threading.max_intra_op_parallelism = 1
    dataset = tf.data.Dataset.range(2**62).map(decode, num_parallel_calls=cores, deterministic=True)
    return (batch.numpy() for batch in dataset.batch(rows).with_options(options))


def draw_window(dataset: ConfigDict, number: int) -> np.ndarray:
    """Draws a random resized crop: top, left, height, width."""
    rng = np.random.default_rng(number)
    uniforms = rng.random((1, 22), np.float32)
    area, aspect = dataset.crop_area, dataset.crop_aspect
    window = crop_windows(np.array([photographs.SIZE[::-1]]), uniforms, area, aspect)
    return window[0]


def pil(rows: int, normalized: bool = False) -> Images:
    """Decodes with PIL in worker threads; PIL releases Python's lock.

    With `normalized`, applies torchvision's ToTensor and Normalize: float32, channels first.
    """
    files = stored_files()
    dataset = base().dataset
    windows = [draw_window(dataset, number) for number in range(1024)]

    def image(number: int) -> np.ndarray:
        top, left, height, width = map(int, windows[number % len(windows)])
        photo = Image.open(io.BytesIO(files[number % len(files)])).convert('RGB')
        box = (left, top, left + width, top + height)
        photo = photo.resize((224, 224), Image.Resampling.BILINEAR, box)
        if number % 2:
            photo = photo.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        if normalized:
            floats = np.asarray(photo).transpose(2, 0, 1) / np.float32(255)
            return (floats - mean) / std
        return np.asarray(photo)

    mean, std = (np.array(x, np.float32)[:, None, None] for x in (dataset.mean, dataset.std))
    with ThreadPoolExecutor(num_cores()) as pool:
        for start in itertools.count(0, rows):
            yield np.stack(list(pool.map(image, range(start, start + rows))))


def flax_example(checkout: Path, data_dir: Path, rows: int) -> Images:
    path = checkout / 'examples/imagenet/input_pipeline.py'
    spec = importlib.util.spec_from_file_location('flax_input_pipeline', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    builder = find_builder('photographs', str(data_dir))
    dataset = module.create_split(builder, rows, train=True)
    return (batch['image'].numpy() for batch in dataset)
