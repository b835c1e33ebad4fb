r"""Counts and times training and evaluation steps of any models, and prints one table.

    python benchmarks/step.py --out=benchmarks/results/step.json
    python benchmarks/step.py --models resnet50:plain ssa_resnet50 --batch_size=256 \
        --dtype=bfloat16 --out=...
    python benchmarks/step.py --devices=8 --rounds=0 --image_size=64 --out=...

A model is a name of `ssanet_jax.model_names()`, optionally followed by the form of its tail:
`ssa_resnet50:plain`. `resnet50:flax` is the network as flax users write it, with `nn.Conv`,
`nn.BatchNorm` and `nn.max_pool`. The first model is the baseline of the ratios.

Counts are XLA's, for one device. On a GPU it counts neither convolutions nor matrix products; use
targets.py there. Models alternate in rounds of timing, after a warm-up; compilation is timed
without and with the cache on disk. TensorFlow is not needed.
"""

import argparse
import contextlib
import functools
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from common import machine, spread, write


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    models = ['resnet50:plain', 'resnet50', 'se_resnet50', 'ssa_resnet50:plain', 'ssa_resnet50']
    models.append('resnet50:flax')
    parser.add_argument('--models', nargs='+', default=models, metavar='NAME[:TAIL]')
    parser.add_argument('--batch_size', type=int, default=32, help='images on each device')
    parser.add_argument('--image_size', type=int, default=224)
    parser.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16'])
    parser.add_argument('--devices', type=int, default=1, help='on a CPU, virtual ones')
    parser.add_argument('--rounds', type=int, default=5, help='0: counts only')
    parser.add_argument('--seconds', type=float, default=2.0, help='least length of a measurement')
    parser.add_argument('--out', type=Path, help='JSON file to write')
    return parser.parse_args()


ARGUMENTS = parse()
os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '') + f' --xla_force_host_platform_device_count={ARGUMENTS.devices}'
)

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import AxisType, Mesh
from rich.console import Console
from rich.table import Table

from ssanet_jax import layers
from ssanet_jax.analysis.hlo import program_cost
from ssanet_jax.analysis.macs import count_tails, model_cost
from ssanet_jax.config import base
from ssanet_jax.layers import conv_pool
from ssanet_jax.training import parallel, trainer_setup


@contextlib.contextmanager
def flax_form() -> Iterator[None]:
    """Context manager in which networks are built and traced with flax's and XLA's layers."""
    max_pool = functools.partial(
        nn.max_pool, window_shape=(3, 3), strides=(2, 2), padding=((1, 1), (1, 1))
    )
    with (
        mock.patch.object(layers, 'BatchNorm', nn.BatchNorm),
        mock.patch.object(conv_pool, '_conv_1x1', jax.lax.conv_general_dilated),
        mock.patch.object(layers, 'max_pool', max_pool),
        mock.patch.object(layers, 'relu', nn.relu),
    ):
        yield


def mesh() -> Mesh:
    devices = jax.devices()[: ARGUMENTS.devices]
    if len(devices) < ARGUMENTS.devices:
        raise SystemExit(f'--devices={ARGUMENTS.devices}: there are {len(devices)}.')
    return jax.make_mesh((len(devices),), ('data',), axis_types=(AxisType.Auto,), devices=devices)


class Model:
    """A network with its compiled steps, its state and one batch on the devices."""

    def __init__(self, spec: str) -> None:
        self.spec = spec
        name, _, form = spec.partition(':')
        self.form = flax_form if form == 'flax' else contextlib.nullcontext
        config = base()
        config.model.name = name
        config.model.tail = {'flax': 'plain', '': 'auto'}.get(form, form)
        config.dtype = ARGUMENTS.dtype
        config.batch_size = ARGUMENTS.batch_size * ARGUMENTS.devices
        config.dataset.image_size = ARGUMENTS.image_size
        with self.form():
            self.setup = trainer_setup.build(
                config, num_classes=1000, num_train_examples=1_281_167, mesh=mesh()
            )
            self.state, self.total = self.setup.init(), self.setup.zero_metrics()
        self.batch = self._batch(config.batch_size)

    def _batch(self, size: int) -> Any:
        shape = (size, ARGUMENTS.image_size, ARGUMENTS.image_size, 3)
        host = jax.device_get(
            {
                'image': jax.random.bits(jax.random.key(0), shape, jnp.uint8),
                'label': jax.random.randint(jax.random.key(1), (size,), 0, 1000),
                'mask': jnp.ones(size, bool),
            }
        )
        return next(iter(parallel.to_devices([host], self.setup.mesh)))

    def compile(self) -> dict[str, Any]:
        """Compiles the steps; returns counts, and compilation times without and with the cache."""
        arguments = self.state, self.batch, self.total
        seconds = {}
        with self.form():
            for start in ('cold', 'warm'):
                jax.clear_caches()
                began = time.perf_counter()
                self.train = self.setup.train_step.lower(*arguments).compile()
                seconds[start] = time.perf_counter() - began
            self.eval = self.setup.eval_step.lower(*arguments).compile()
            self._compile_inference(arguments)
        cost = model_cost(self.setup.model, ARGUMENTS.image_size)
        return {
            'model': self.spec,
            'parameters': cost.parameters,
            'macs': cost.macs,
            'tails': count_tails(self.setup.model, ARGUMENTS.image_size, ARGUMENTS.batch_size),
            **program_cost(self.train)._asdict(),
            'compile_seconds': seconds,
        }

    def _compile_inference(self, arguments: tuple[Any, ...]) -> None:
        self.infer = None
        if self.form is flax_form:
            return  # fold_batch_norm knows our BatchNorm only.
        inference, folded = self.setup.for_inference(arguments[0])
        self.folded = jax.tree.map(jnp.copy, folded)  # Training donates shared buffers.
        self.infer = inference.eval_step.lower(self.folded, *arguments[1:]).compile()

    def step(self, kind: str, repeats: int) -> float:
        """Seconds per step, averaged over `repeats`."""
        began = time.perf_counter()
        for _ in range(repeats):
            if kind == 'train':
                self.state, self.total = self.train(self.state, self.batch, self.total)
            elif kind == 'eval':
                self.total = self.eval(self.state, self.batch, self.total)
            else:
                self.total = self.infer(self.folded, self.batch, self.total)
        jax.block_until_ready((self.state, self.total))
        return (time.perf_counter() - began) / repeats


def measure(models: list[Model], results: list[dict[str, Any]], kind: str) -> None:
    """Adds the images/s of every round, and their ratios to the baseline in the same round."""
    if kind == 'inference':
        able = [i for i, model in enumerate(models) if model.infer is not None]
        models, results = [models[i] for i in able], [results[i] for i in able]
    for model in models:
        model.step(kind, 2)  # the first are slower
    warm_up = [model.step(kind, 2) for model in models]
    repeats = max(1, round(ARGUMENTS.seconds / min(warm_up)))
    images = ARGUMENTS.batch_size * ARGUMENTS.devices
    speeds: list[list[float]] = [[] for _ in models]
    for number in range(ARGUMENTS.rounds):
        for model, measured in zip(models, speeds, strict=True):
            measured.append(images / model.step(kind, repeats))
        print(f'{kind} round {number + 1} of {ARGUMENTS.rounds}', flush=True)
    for result, measured in zip(results, speeds, strict=True):
        ratios = [mine / baseline for mine, baseline in zip(measured, speeds[0], strict=True)]
        result[f'{kind}_images_per_second'] = {**spread(measured), 'rounds': measured}
        result[f'{kind}_speed_ratio'] = spread(ratios)


def show(results: list[dict[str, Any]]) -> None:
    first = results[0]
    table = Table(title=f'One device, ratios to {first["model"]}', title_justify='left')
    columns = ['model', 'parameters', 'MACs', 'folded', 'flops', 'bytes', 'temporaries']
    columns += ['all-reduces', 'compile s, cold/warm', 'train img/s', 'eval', 'inference']
    for column in columns:
        table.add_column(column, justify='left' if column == 'model' else 'right')
    for r in results:
        table.add_row(
            r['model'],
            f'{r["parameters"]:,}',
            f'{r["macs"] / 1e9:.3f} G',
            f'{r["tails"]["folded"]}/{sum(r["tails"].values())}',
            f'{r["flops"] / 1e9:.0f} G',
            *(
                f'{r[name] / 1e9:.2f} GB x{r[name] / first[name]:.2f}'
                for name in ('bytes_accessed', 'temporaries')
            ),
            f'{r["all_reduces"]} ({r["all_reduce_bytes"] / 1e6:.0f} MB)',
            '/'.join(f'{s:.1f}' for s in r['compile_seconds'].values()),
            *(speed_and_ratio(r, kind) for kind in ('train', 'eval', 'inference')),
        )
    Console(width=200).print(table)


def speed_and_ratio(result: dict[str, Any], kind: str) -> str:
    if f'{kind}_images_per_second' not in result:
        return '-'
    speed, ratio = result[f'{kind}_images_per_second'], result[f'{kind}_speed_ratio']
    return f'{speed["median"]:,.3g} x{ratio["median"]:.2f}'


def main() -> None:
    with tempfile.TemporaryDirectory() as cache:
        jax.config.update('jax_compilation_cache_dir', cache)
        jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.0)
        models, results = [], []
        for spec in ARGUMENTS.models:
            models.append(Model(spec))
            results.append(models[-1].compile())
            print(f'{spec} compiled', flush=True)
    for kind in ('train', 'eval', 'inference') if ARGUMENTS.rounds else ():
        measure(models, results, kind)
    show(results)
    if ARGUMENTS.out:
        arguments = {k: v for k, v in vars(ARGUMENTS).items() if k != 'out'}
        device = jax.devices()[0].device_kind
        environment = {**machine('jax', 'jaxlib', 'flax'), 'device': device}
        write(ARGUMENTS.out, {'machine': environment, 'arguments': arguments, 'models': results})


if __name__ == '__main__':
    main()
