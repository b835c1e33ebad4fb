"""Compares the rates of augmented and plain crops of 224 pixels, in turns, from bytes in memory.

    python benchmarks/augmentation.py --out=benchmarks/results/augmentation.json

Seconds are of processor time of all threads, so that other load on the machine counts little. The
photographs, crops and batches are those of input.py.
"""

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

from common import machine, spread, write
from input import in_memory

from ssanet_jax.config import base
from ssanet_jax.data.decoding.decode import DecodeSpec

BATCH_SIZE = 128
CONTENDERS: dict[str, dict[str, Any]] = {
    'plain': {},
    'trivial_wide': {'augment': 'trivial_wide'},
    'rand-m7-mstd0.5-inc1': {'augment': 'rand-m7-mstd0.5-inc1'},
    'color_jitter=(0.4, 0.4, 0.4, 0)': {'color_jitter': (0.4, 0.4, 0.4, 0.0)},
    'random_erasing=0.1': {'random_erasing': 0.1},
    'cutout=112': {'cutout': 112},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, help='JSON file to write')
    parser.add_argument('--rounds', type=int, default=9)
    parser.add_argument('--batches', type=int, default=6, help='of 128 images, in each round')
    arguments = parser.parse_args()
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for number in range(arguments.rounds):
        for name, settings in CONTENDERS.items():
            rounds[name].append(measure(settings, arguments.batches))
        shown = (f'{name} {1e3 * r[-1]["cpu"]:.2f} ms' for name, r in rounds.items())
        print(f'round {number + 1}: {", ".join(shown)}', flush=True)
    result = {
        'machine': machine('simplejpeg', 'pillow', 'opencv-python-headless'),
        'batch_size': BATCH_SIZE,
        'contenders': {name: summary(rounds, name) for name in CONTENDERS},
    }
    for name, values in result['contenders'].items():
        print(f'{name:32} {values}')
    if arguments.out:
        write(arguments.out, result)


def measure(settings: dict[str, Any], batches: int) -> dict[str, float]:
    """Seconds per image: of processors, and by the clock."""
    dataset = base().dataset
    dataset.update(settings)
    stream = in_memory(DecodeSpec(dataset, 'resized'), BATCH_SIZE)
    for _ in range(2):
        next(stream)
    cpu, clock = time.process_time(), time.perf_counter()
    for _ in itertools.islice(stream, batches):
        pass
    images = batches * BATCH_SIZE
    seconds = {
        'cpu': (time.process_time() - cpu) / images,
        'clock': (time.perf_counter() - clock) / images,
    }
    stream.close()  # type: ignore[attr-defined]
    return seconds


def summary(rounds: dict[str, list[dict[str, float]]], name: str) -> dict[str, Any]:
    """CPU milliseconds per image, and rates relative to plain crops in the same round."""
    pairs = list(zip(rounds['plain'], rounds[name], strict=True))
    return {
        'cpu_ms_per_image': spread([1e3 * other['cpu'] for _, other in pairs]),
        'cpu_rate_ratio': spread([plain['cpu'] / other['cpu'] for plain, other in pairs]),
        'clock_rate_ratio': spread([plain['clock'] / other['clock'] for plain, other in pairs]),
    }


if __name__ == '__main__':
    main()
