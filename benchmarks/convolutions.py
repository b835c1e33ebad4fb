"""Times XLA's convolutions against patches times a matrix, forward and both gradients.

    python benchmarks/convolutions.py --out=benchmarks/results/convolutions.json

Covers every 3x3 shape of ResNet-50 at stride 1, and its stem, whose input needs no gradient, in
float32. The two forms alternate in rounds, after one round of warm-up.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from common import machine, spread, write

LAYERS = {  # pixels, input channels, output channels, kernel size, stride
    'stem': (224, 3, 64, 7, 2),
    '56x56, 64': (56, 64, 64, 3, 1),
    '28x28, 128': (28, 128, 128, 3, 1),
    '14x14, 256': (14, 256, 256, 3, 1),
    '7x7, 512': (7, 512, 512, 3, 1),
}


def convolve(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    pad = kernel.shape[0] // 2
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        ((pad, pad),) * 2,
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
    )


def patches(x: jax.Array, size: int, stride: int) -> jax.Array:
    """The input patch of a convolution at every pixel, [N H W, size size C]."""
    pad, pixels = size // 2, (x.shape[1] - 1) // stride + 1
    x = jnp.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    last = stride * (pixels - 1) + 1
    taps = [
        x[:, i : i + last : stride, j : j + last : stride] for i in range(size) for j in range(size)
    ]
    return jnp.concatenate(taps, axis=-1).reshape(-1, size * size * x.shape[-1])


def forms(stride: int) -> dict[str, dict[str, Callable[..., jax.Array]]]:
    """Each pass as a function of (x, kernel, dy), in both forms."""

    def flipped(kernel: jax.Array) -> jax.Array:
        return jnp.flip(kernel, (0, 1)).swapaxes(2, 3)

    def product(x: jax.Array, kernel: jax.Array) -> jax.Array:
        return patches(x, kernel.shape[0], stride) @ kernel.reshape(-1, kernel.shape[-1])

    def patch_weight(x: jax.Array, kernel: jax.Array, dy: jax.Array) -> jax.Array:
        rows = dy.reshape(-1, dy.shape[-1])
        return (patches(x, kernel.shape[0], stride).T @ rows).reshape(kernel.shape)

    return {
        'forward': {
            'XLA': lambda x, kernel, dy: convolve(x, kernel, stride),
            'patches': lambda x, kernel, dy: product(x, kernel),
        },
        'weight gradient': {
            'XLA': lambda x, kernel, dy: jax.vjp(lambda k: convolve(x, k, stride), kernel)[1](dy)[
                0
            ],
            'patches': patch_weight,
        },
        'input gradient': {
            'XLA': lambda x, kernel, dy: jax.vjp(lambda a: convolve(a, kernel, stride), x)[1](dy)[
                0
            ],
            'patches': lambda x, kernel, dy: product(dy, flipped(kernel)),
        },
    }


def measure(name: str, batch_size: int, rounds: int) -> list[dict[str, Any]]:
    pixels, inputs, outputs, size, stride = LAYERS[name]
    x = jnp.full((batch_size, pixels, pixels, inputs), 0.1)
    kernel = jnp.full((size, size, inputs, outputs), 0.1)
    dy = jnp.full((batch_size, pixels // stride, pixels // stride, outputs), 0.1)
    results = []
    for step, pair in forms(stride).items():
        if name == 'stem' and step == 'input gradient':
            continue
        programs = {form: jax.jit(f).lower(x, kernel, dy).compile() for form, f in pair.items()}
        seconds: dict[str, list[float]] = {form: [] for form in programs}
        for number in range(rounds + 1):
            for form, program in programs.items():
                began = time.perf_counter()
                jax.block_until_ready(program(x, kernel, dy))
                if number:
                    seconds[form].append(time.perf_counter() - began)
        ratio = [p / x for p, x in zip(seconds['patches'], seconds['XLA'], strict=True)]
        times = {form: spread(values) for form, values in seconds.items()}
        results.append({'layer': name, 'pass': step, 'seconds': times, 'ratio': spread(ratio)})
        print(f'{name}, {step}: patches take {spread(ratio)["median"]:.2f} of the time', flush=True)
    return results


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--batch_size', type=int, default=16)
    parser.add_argument('--rounds', type=int, default=7)
    parser.add_argument('--out', type=Path, help='JSON file to write')
    arguments = parser.parse_args()
    results = [r for name in LAYERS for r in measure(name, arguments.batch_size, arguments.rounds)]
    if arguments.out:
        asked = {'batch_size': arguments.batch_size, 'rounds': arguments.rounds}
        environment = machine('jax', 'jaxlib')
        write(arguments.out, {'machine': environment, 'arguments': asked, 'results': results})


if __name__ == '__main__':
    main()
