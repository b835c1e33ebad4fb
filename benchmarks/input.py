"""Compares the input pipeline with others, on photographs the size of ImageNet's.

    git clone --depth=1 https://github.com/google/flax /tmp/flax
    python benchmarks/input.py --flax=/tmp/flax --out=benchmarks/results/input.json

Every contender makes random resized crops of 224 pixels, mirrored or not, on all cores. They
alternate in rounds; rates are medians over the rounds. Without --flax, the input pipeline of the
flax ImageNet example is omitted.
"""

import argparse
import io
import itertools
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

import numpy as np
import photographs
from common import ROOT, machine, spread, write
from input_peers import Images, decode_alone, flax_example, pil, stored_files
from ml_collections import ConfigDict
from PIL import Image

from ssanet_jax import data
from ssanet_jax.config import base, cifar
from ssanet_jax.data import decoded_batches, memory
from ssanet_jax.data.builders import open_source
from ssanet_jax.data.decoding import jpeg
from ssanet_jax.data.decoding.crops import crop_windows
from ssanet_jax.data.decoding.decode import DecodeSpec, decode, draw
from ssanet_jax.data.sources import READ_SIZE, EncodedBatch


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--flax', type=Path, help='a checkout of google/flax')
    parser.add_argument('--out', type=Path, help='JSON file to write')
    parser.add_argument('--batch_size', type=int, default=256)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--images', type=int, default=3072, help='timed in each round')
    parser.add_argument('--memory_of', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    data_dir = Path(tempfile.gettempdir()) / 'ssanet_jax_photographs'
    folders = {f: photographs.prepare(data_dir, f) for f in ('array_record', 'tfrecord')}
    if arguments.memory_of:
        print(peak_memory(recipe(Path(arguments.memory_of), 1024)))
        return

    contenders = make_contenders(folders, arguments.batch_size, arguments.flax)
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(arguments.rounds):
        for name, make in contenders.items():
            rates[name].append(measure(make(), arguments.images))
        shown = '  '.join(f'{name} {values[-1]:,.0f}' for name, values in rates.items())
        print(f'round {number + 1}: {shown}', flush=True)
    result = {
        'machine': machine(
            'simplejpeg', 'tensorflow-cpu', 'tensorflow-datasets', 'array_record', 'pillow'
        ),
        'batch_size': arguments.batch_size,
        'images_per_second': {name: spread(values) for name, values in rates.items()},
        'rounds': rates,
        'memory_set_images_per_second': spread(memory_rates(arguments.rounds)),
        'first_batch_seconds': first_batches(folders['array_record'], arguments.rounds),
        'peak_memory_bytes': {
            name: memory_in_subprocess(folder) for name, folder in folders.items()
        },
        'difference_to_pil': differences(),
        'choices_images_per_second': choices(arguments.rounds),
    }
    for name, values in result['images_per_second'].items():
        print(f'{name:40} {values["median"]:8,.0f} images/s')
    print({k: v for k, v in result.items() if k not in ('images_per_second', 'rounds')})
    if arguments.out:
        write(arguments.out, result)


def recipe(data_dir: Path, batch_size: int) -> ConfigDict:
    config = base()
    config.dataset.name = 'photographs'
    config.dataset.data_dir = str(data_dir)
    config.batch_size = batch_size
    return config


def make_contenders(
    folders: dict[str, Path], batch_size: int, flax: Path | None
) -> dict[str, Callable[[], Images]]:
    configs = {name: recipe(folder, batch_size) for name, folder in folders.items()}
    dataset = configs['array_record'].dataset
    contenders: dict[str, Callable[[], Images]] = {
        'decode and crop alone': lambda: decode_alone(dataset, batch_size),
        'ours, bytes in memory': lambda: in_memory(DecodeSpec(dataset, 'resized'), batch_size),
        'ours, array_record': lambda: ours(configs['array_record']),
        'ours, tfrecord': lambda: ours(configs['tfrecord']),
        'PIL in threads': lambda: pil(batch_size),
        'PIL in threads, to float32': lambda: pil(batch_size, normalized=True),
    }
    if flax:
        contenders['flax example, tfrecord'] = lambda: flax_example(
            flax, folders['tfrecord'], batch_size
        )
    return contenders


def measure(batches: Images, count: int) -> float:
    """Images per second after the first two batches."""
    for _ in range(2):
        size = len(next(batches))
    start = time.perf_counter()
    for _ in range(-(-count // size)):
        next(batches)
    seconds = time.perf_counter() - start
    if hasattr(batches, 'close'):
        batches.close()
    return -(-count // size) * size / seconds


def ours(config: ConfigDict) -> Images:
    return (batch['image'] for batch in data.train_batches(config))


def stored_batches() -> Iterator[EncodedBatch]:
    files = stored_files()
    for start in itertools.count(0, READ_SIZE):
        number = np.arange(start, start + READ_SIZE)
        yield EncodedBatch(
            [files[n % len(files)] for n in number], number % 1000, number, number * 0
        )


def in_memory(spec: DecodeSpec, rows: int) -> Images:
    return (batch.image for batch in decoded_batches.decode_batches(stored_batches(), spec, rows))


def memory_rates(rounds: int) -> list[float]:
    """Images per second of padded crops from memory, for random pixels of CIFAR-10's size."""
    rng = np.random.default_rng(0)
    padded = rng.integers(0, 256, (50_000, 40, 40, 3), np.uint8)
    split = memory.Split(padded, np.zeros(50_000, np.int32))
    spec = DecodeSpec(cifar('cifar10').dataset, 'padded', 0, 50_000)
    rates = []
    for _ in range(rounds):
        batches = memory.train_images(
            split, spec, batch_size=512, start_step=0, shard=data.HostShard(0, 1)
        )
        rates.append(measure((image for image, _ in batches), 50_000))
    return rates


def first_batches(folder: Path, rounds: int) -> dict[str, Any]:
    """Seconds to the first batch, starting alternately at the first step and a distant one."""
    config = recipe(folder, 256)
    seconds: dict[str, list[float]] = {'step 0': [], 'step 1,000,000': []}
    for _ in range(rounds):
        for name, step in (('step 0', 0), ('step 1,000,000', 1_000_000)):
            start = time.perf_counter()
            batches = data.train_batches(config, start_step=step)
            next(batches)
            seconds[name].append(time.perf_counter() - start)
            batches.close()
    return {name: spread(values) for name, values in seconds.items()}


def peak_memory(config: ConfigDict) -> int:
    """Peak memory in bytes that a dozen batches add to a process with all libraries loaded."""
    open_source(config.dataset, 'train')
    before = resident('VmRSS')
    for _ in itertools.islice(data.train_batches(config), 12):
        pass
    return resident('VmHWM') - before


def resident(name: str) -> int:
    """Resident memory in bytes: VmRSS for the current, VmHWM for the peak value (Linux)."""
    lines = Path('/proc/self/status').read_text().splitlines()
    (line,) = (line for line in lines if line.startswith(name))
    return int(line.split()[1]) * 1024


def memory_in_subprocess(folder: Path) -> int:
    command = [sys.executable, __file__, f'--memory_of={folder}']
    return int(subprocess.run(command, cwd=ROOT, check=True, capture_output=True).stdout)


def differences() -> dict[str, Any]:
    """Mean absolute difference in gray levels from exact decoding and antialiasing by PIL."""
    settings = [(i, a) for i in ('bilinear', 'bicubic') for a in (False, True)]
    by_setting: dict[str, list[float]] = {f'{i}, antialias={a}': [] for i, a in settings}
    dataset = base().dataset
    dataset.flip = False
    area, aspect = dataset.crop_area, dataset.crop_aspect
    for number in range(64):
        file, key = photographs.encoded(number), np.array([[0, number]])
        spec = DecodeSpec(dataset, 'resized')
        sides = np.array([photographs.SIZE[::-1]])
        window = crop_windows(sides, draw(key, spec)[:, 1:], area, aspect)
        top, left, height, width = window[0].tolist()
        photo = Image.open(io.BytesIO(file)).crop((left, top, left + width, top + height))
        expected = np.asarray(photo.resize((224, 224), Image.Resampling.BILINEAR), float)
        for interpolation, antialias in settings:
            dataset.interpolation, dataset.antialias = interpolation, antialias
            crop = np.zeros((1, 224, 224, 3), np.uint8)
            decode([file], key, crop, spec)
            by_setting[f'{interpolation}, antialias={antialias}'].append(
                np.abs(crop - expected).mean()
            )
    return {name: spread(list(map(float, values))) for name, values in by_setting.items()}


def choices(rounds: int) -> dict[str, Any]:
    """Images per second and bytes of memory with settings other than the recipe's."""
    rates: dict[str, list[float]] = {}

    def add(name: str, crop: str = 'resized', **settings: Any) -> None:
        dataset = base().dataset
        dataset.update(settings)
        speed = measure(in_memory(DecodeSpec(dataset, crop), 256), 1024)
        rates.setdefault(name, []).append(speed)

    for _ in range(rounds):
        add('bilinear')
        add('bilinear, antialias', antialias=True)
        add('bicubic', interpolation='bicubic')
        add('bicubic, antialias', interpolation='bicubic', antialias=True)
        add('evaluation', 'center')
        add('112 pixels', image_size=112)
        with mock.patch.object(jpeg, 'MAX_HALVINGS', 0):
            add('112 pixels, decoded in full', image_size=112)
    return {name: spread(values) for name, values in rates.items()}


if __name__ == '__main__':
    main()
