r"""Trains SSA-ResNet-20 on digits here and in PyTorch, from the same weights on the same batches.

    pip install -e .[train,torch]
    taskset -c 0 python studies/torch_learning.py
    python studies/torch_learning.py --figure_only   # from the raw data; needs no torch

Both follow configs/digits_ssa20.py, with fewer epochs. For each seed, the network of
torch_ssa_resnet.py gets the initial weights and the augmented batches of ours. Further runs of seed
0 show what rounding alone does: in float64, and with one weight changed by one ulp. Each run is
written when it ends; the same command continues with the next.
"""

import argparse
import contextlib
import itertools
import json
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

os.environ['JAX_PLATFORMS'] = 'cpu'  # accelerators round float32 products

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from benchmarks.common import ROOT, machine, write
from configs import digits_ssa20
from ssanet_jax import data, weights
from ssanet_jax.training import trainer_setup
from ssanet_jax.training.evaluation import evaluate
from ssanet_jax.training.parallel import replicated, to_devices
from ssanet_jax.training.steps import TrainState
from ssanet_jax.training.trainer_setup import TrainerSetup
from studies import torch_learning_figure
from studies.torch_learning_summary import COMPARED_STEPS, summarize

OUT = ROOT / 'studies/results/torch_learning.json'


class Run(NamedTuple):
    framework: str  # 'ours' or 'torch'
    dtype: str
    seed: int
    changed: bool = False  # one weight by one ulp

    def name(self) -> str:
        return f'{self.framework} {self.dtype} {self.seed}{" changed" * self.changed}'


def planned(seeds: int) -> list[Run]:
    comparisons = [
        Run('ours', 'float32', 0, changed=True),
        Run('ours', 'float64', 0),
        Run('torch', 'float64', 0),
        Run('ours', 'float64', 0, changed=True),
    ]
    pairs = [Run(name, 'float32', seed) for seed in range(seeds) for name in ('ours', 'torch')]
    return [*pairs[:2], *comparisons, *pairs[2:]]


def make_config(seed: int, epochs: float) -> ConfigDict:
    config = digits_ssa20.get_config()
    config.seed, config.num_epochs = seed, epochs
    return config


@contextlib.contextmanager
def precision(dtype: str) -> Iterator[None]:
    """Enables float64, and the implicit promotion that optax and flax need for it."""
    if dtype == 'float32':
        yield
        return
    with jax.enable_x64(True), jax.numpy_dtype_promotion('standard'):
        yield


def normalize(image: jax.Array, *, mean: np.ndarray, std: np.ndarray) -> jax.Array:
    """As `pretrained.preprocessing.normalize`, in float64."""
    return (image.astype(jnp.float64) / 255 - mean) / std


def build(config: ConfigDict, dtype: str) -> TrainerSetup:
    info = data.dataset_info(config)
    preprocess = None
    if dtype == 'float64':
        config.dtype, mean, std = dtype, np.array(config.dataset.mean), np.array(config.dataset.std)
        preprocess = partial(normalize, mean=mean, std=std)
    return trainer_setup.build(
        config,
        num_classes=info.num_classes,
        num_train_examples=info.num_train,
        preprocess=preprocess,
    )


def initial(config: ConfigDict, run: Run) -> TrainState:
    """The float32 state of `config.seed` in the dtype of `run`, perhaps with one weight changed."""
    state = build(config, 'float32').init()
    # The step too: from an int32, optax computes learning rates in float32.
    wider = {'f': np.float64, 'i': np.int64} if run.dtype == 'float64' else {}
    state = jax.tree.map(lambda a: np.array(a, wider.get(np.dtype(a.dtype).kind, a.dtype)), state)
    if run.changed:
        kernel = state.params['conv1']['kernel']  # [3, 3, 3, 16]
        kernel[1, 1, 0, 0] = np.nextafter(kernel[1, 1, 0, 0], kernel.dtype.type(np.inf))
    return state


def shown(losses: Iterator[float], run: Run, steps: int) -> list[float]:
    """Collects the losses and prints some."""
    kept = []
    for step, loss in enumerate(losses):
        kept.append(loss)
        if step % 100 == 0 or step == steps - 1:
            print(f'{run.name()}: step {step} of {steps}, loss {loss:.4g}', flush=True)
    return kept


def train_ours(run: Run, config: ConfigDict, steps: int) -> dict[str, Any]:
    state = initial(config, run)
    with precision(run.dtype):
        setup = build(config, run.dtype)
        state = jax.device_put(state, replicated(setup.mesh))

        @jax.jit
        def loss_of(state: TrainState, batch: dict[str, jax.Array]) -> jax.Array:
            # The training step sums its loss in float32.
            apply = partial(setup.model.apply, train=True, mutable=['batch_stats'])
            logits, _ = apply(state.variables, setup.objective.preprocess(batch['image']))
            return setup.objective.loss(logits, batch['label']).mean()

        def losses() -> Iterator[float]:
            nonlocal state
            batches = itertools.islice(data.train_batches(config), steps)
            for batch in to_devices(batches, setup.mesh):
                yield float(loss_of(state, batch))
                state, _ = setup.train_step(state, batch, setup.zero_metrics())

        return {
            'losses': shown(losses(), run, steps),
            'test': evaluate(config, setup, state),
        }


def train_torch(run: Run, config: ConfigDict, steps: int) -> dict[str, Any]:
    import torch

    from studies import torch_ssa_resnet as peer

    torch.set_num_threads(1)
    setup = build(config, 'float32')
    dtype = getattr(torch, run.dtype)
    network = peer.SSAResNet20(num_classes=data.dataset_info(config).num_classes)
    network.load_state_dict(weights.to_torch(setup.init().variables, setup.model), strict=True)
    network.to(dtype)

    def tensors(batch: data.Batch) -> tuple[torch.Tensor, torch.Tensor]:
        assert batch['mask'].all()
        image = peer.normalize(batch, config.dataset.mean, config.dataset.std, dtype)
        return image, torch.from_numpy(batch['label'].astype(np.int64))

    losses = peer.train(
        network,
        map(tensors, itertools.islice(data.train_batches(config), steps)),
        learning_rate=setup.plan.peak_learning_rate,
        momentum=config.optimizer.momentum,
        weight_decay=config.optimizer.weight_decay,
        schedule_steps=setup.plan.num_train_steps,
    )
    result = {'losses': shown(losses, run, steps)}
    (test,) = map(tensors, data.eval_batches(config, config.dataset.eval_split))
    result['test'] = peer.evaluate(network, *test)
    peer.make_variances_biased(network, config.batch_size * config.dataset.image_size**2, steps)
    return {**result, 'test_with_biased_variances': peer.evaluate(network, *test)}


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--seeds', type=int, default=5, help='number of pairs')
    parser.add_argument('--epochs', type=float, default=20.0)
    parser.add_argument(
        '--figure_only', action='store_true', help='summarize and draw what --out holds'
    )
    parser.add_argument('--out', type=Path, default=OUT, help='JSON file; the figure is beside it')
    return parser.parse_args()


def train_missing(arguments: argparse.Namespace) -> None:
    """Trains what `arguments.out` does not hold yet, and adds it."""
    start = {
        'command': f'python studies/torch_learning.py --epochs={arguments.epochs:g}',
        'machine': machine('jax', 'jaxlib', 'flax', 'optax', 'torch', 'numpy'),
    }
    result = {**start, 'runs': {}}
    if arguments.out.exists():
        result = json.loads(arguments.out.read_text())
        for key, value in start.items():
            if result[key] != value:
                raise SystemExit(
                    f'{arguments.out} holds runs of {key} {result[key]}, and this is {value}; '
                    'delete it, or choose another --out.'
                )
    train = {'ours': train_ours, 'torch': train_torch}
    for run in planned(arguments.seeds):
        if run.name() in result['runs']:
            continue
        config = make_config(run.seed, arguments.epochs)
        steps = build(config, 'float32').plan.num_train_steps
        if run.changed or run.dtype == 'float64':
            steps = min(steps, COMPARED_STEPS)
        result['runs'][run.name()] = train[run.framework](run, config, steps)
        write(arguments.out, result)


def main() -> None:
    arguments = parse()
    if not arguments.figure_only:
        train_missing(arguments)
    result = json.loads(arguments.out.read_text())
    write(arguments.out, result | {'summary': summarize(result['runs'])})
    figure = arguments.out.with_suffix('.svg')
    figure.write_text(torch_learning_figure.draw(result['runs']))
    print(f'Written to {figure}')


if __name__ == '__main__':
    main()
