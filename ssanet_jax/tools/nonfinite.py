r"""Names the first module that turned non-finite in a run that diverged.

    ssanet nonfinite --workdir=runs/digits

Replays training in memory from a checkpoint to the bad step, then recomputes that step while
checking every module's inputs, outputs and gradients. The workdir is not changed. Use as many
devices, and the same data and versions, as the run did. If the loss is finite but above
config.max_loss, the largest gradients are shown.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from etils import epath
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import track

from ssanet_jax import runtime
from ssanet_jax.config.validation import check, check_batch_size
from ssanet_jax.tables import Column, Table, show
from ssanet_jax.tools import cli
from ssanet_jax.trained.inspection import ArrayStats, array_stats
from ssanet_jax.trained.nonfinite import Diagnosis, NonFiniteSource, by_name, first_nonfinite

if TYPE_CHECKING:
    from ssanet_jax.training.steps import DeviceBatch, TrainState
    from ssanet_jax.training.trainer_setup import TrainerSetup

FLAGS = flags.FLAGS

_MAX_NAMED = 3  # arrays listed before 'and 12 more'
_MAX_ROWS = 5  # modules in the table
_SQUARE_OVERFLOWS = math.sqrt(float(jnp.finfo(jnp.float32).max))


def main() -> None:
    folder = epath.Path(FLAGS.workdir)
    from ssanet_jax.config import with_defaults
    from ssanet_jax.training.storage.workdir import Workdir

    config = with_defaults(Workdir(folder).read_config())
    runtime.enable_compilation_cache()
    check(config)
    check_batch_size(config, jax.device_count())
    replay(config, folder, FLAGS.checkpoint, FLAGS.max_steps)


def replay(config: ConfigDict, folder: epath.Path, checkpoint: str, max_steps: int) -> None:
    """Trains from `checkpoint` to the first bad step and prints its diagnosis."""
    from ssanet_jax import data
    from ssanet_jax.training import trainer_setup
    from ssanet_jax.training.storage import run_history
    from ssanet_jax.training.storage.workdir import Workdir

    info = data.dataset_info(config)
    setup = trainer_setup.build(
        config, num_classes=info.num_classes, num_train_examples=info.num_train
    )
    console = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)
    for note in run_history.check_same_run(config, info, Workdir(folder), allow_config_change=True):
        console.print(note, markup=False)
    state = _restore(config, setup, folder, checkpoint)
    start, last = int(state.step), setup.plan.num_train_steps
    stop = min(start + max_steps, last)
    bad = _bad_step(config, setup, state, stop, console)
    if bad is None:
        more = f' --max_steps={2 * max_steps} searches further.' if stop < last else ''
        print(f'None of the {stop - start:,} steps from {start:,} to {stop:,} is bad.{more}')
        return
    step, state, batch = bad
    diagnosis = first_nonfinite(setup.objective, state, batch, setup.mesh)
    learning_rate = float(setup.schedule(step - 1))
    print(f'Step {step:,}: loss {diagnosis.loss:.4g}, learning rate {learning_rate:.4g}.')
    params = by_name(state.params)
    stats = {'parameters': params, 'running statistics': by_name(state.batch_stats)}
    for kind, arrays in stats.items():
        if names := _nonfinite(arrays):
            print(f'Not finite before the step: the {kind} {names}.')
    print(*describe(diagnosis, params, config.max_loss), sep='\n')
    if math.isfinite(diagnosis.loss) and diagnosis.backward is None:
        show([largest_gradients(diagnosis.grads, params)], 'table')


def _restore(
    config: ConfigDict, setup: 'TrainerSetup', folder: epath.Path, checkpoint: str
) -> 'TrainState':
    """The state of a checkpoint; the initial one for 'latest' in a run without checkpoints."""
    from ssanet_jax.training.checkpoints.reader import read_checkpoint
    from ssanet_jax.training.initial_weights import load_weights
    from ssanet_jax.training.storage.workdir import Workdir

    state = setup.init()
    if Workdir(folder).checkpoint_steps() or checkpoint != 'latest':
        return read_checkpoint(folder, checkpoint, lambda found, n: found.restore_state(n, state))
    return load_weights(config, setup, state) if config.init.weights else state


def _bad_step(
    config: ConfigDict, setup: 'TrainerSetup', state: 'TrainState', stop: int, console: Console
) -> 'tuple[int, TrainState, DeviceBatch] | None':
    """The first bad step up to `stop`, the state before it and its batch, or None."""
    from ssanet_jax import data
    from ssanet_jax.training.parallel import to_devices

    start, total = int(state.step), setup.zero_metrics()
    batches = to_devices(data.train_batches(config, start_step=start), setup.mesh)
    hidden = not console.is_terminal
    for _ in track(range(start, stop), 'replaying', console=console, disable=hidden):
        batch, before = next(batches), jax.tree.map(jnp.copy, state)  # The step donates it.
        state, total = setup.train_step(state, batch, total)
        if bad := int(total.bad_step):
            return bad, before, batch
    return None


def describe(diagnosis: Diagnosis, params: Mapping[str, np.ndarray], max_loss: float) -> list[str]:
    """Lines that say what is not finite, and which module produced it."""
    images, logits = diagnosis.edges[0].values, diagnosis.edges[-1].values
    if diagnosis.forward:
        return [f'First to turn non-finite: {_describe(diagnosis.forward, "input")}']
    if images.nonfinite:
        return [f'The preprocessed images are not finite: {_count(images)}.']
    if not math.isfinite(diagnosis.loss):
        return [
            f'All modules are finite, the logits up to {logits.largest:.2g}, but the loss is not.'
        ]
    if diagnosis.backward:
        return [
            'The forward pass is finite. First to turn non-finite in the backward pass: '
            f'{_describe(diagnosis.backward, "output gradient")}',
            f'Gradients that are not finite: {_nonfinite(diagnosis.grads)}.',
        ]
    return [_describe_finite(diagnosis, params, max_loss)]


def _describe(found: NonFiniteSource, source: str) -> str:
    """'layer3_1/bn2 (BatchNorm), 12 of 4,096 values; its input is finite, up to 3.2e+37.'"""
    produced, received = found.produced, found.received
    if found.path is None:
        return f'the loss, {_count(produced)}; the logits are up to {received.largest:.2g}.'
    name = f'{found.path or "the network"} ({found.kind})'
    if found.submodule:
        name += f', in its own code next to {found.submodule}'
    known = f'; its {source} is finite, up to {received.largest:.2g}' if received.size else ''
    return f'{name}, {_count(produced)}{known}.'


def _describe_finite(
    diagnosis: Diagnosis, params: Mapping[str, np.ndarray], max_loss: float
) -> str:
    largest = {name: array_stats(array).largest for name, array in params.items()}
    name = max(largest, key=largest.__getitem__)
    finite = f'Everything is finite; the largest |parameter| is {largest[name]:.2g}, in {name}'
    norm = _norm(diagnosis.grads.values())
    if diagnosis.loss > max_loss:
        return f'{finite}. The loss is above config.max_loss={max_loss:g}.'
    if norm > _SQUARE_OVERFLOWS:
        return f"{finite}. The gradient's norm, {norm:.2g}, is too large to be squared in float32."
    return f'{finite}. The step is good as computed here, rounded differently than in training.'


def largest_gradients(grads: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray]) -> Table:
    """The modules whose parameters have the largest gradient norms."""
    names = defaultdict(list)
    for name in grads:
        names[name.rpartition('/')[0]].append(name)
    rows = [
        (
            module,
            _norm(grads[name] for name in own),
            max(array_stats(params[name]).largest for name in own),
        )
        for module, own in names.items()
    ]
    rows.sort(key=lambda row: row[1], reverse=True)
    columns = [
        Column('module', left=True),
        Column('gradient norm', '{:.3g}'.format),
        Column('largest |parameter|', '{:.3g}'.format),
    ]
    return Table('Largest gradients', columns, rows[:_MAX_ROWS])


def _norm(arrays: Iterable[np.ndarray]) -> float:
    return math.hypot(*(np.linalg.norm(array.astype(np.float64)) for array in arrays))


def _nonfinite(arrays: Mapping[str, np.ndarray]) -> str:
    """'conv1/kernel (3 of 432 values), bn1/bias (all 16 values) and 12 more'; '' for none."""
    stats = {name: array_stats(array) for name, array in arrays.items()}
    bad = [f'{name} ({_count(values)})' for name, values in stats.items() if values.nonfinite]
    if len(bad) > _MAX_NAMED:
        return f'{", ".join(bad[:_MAX_NAMED])} and {len(bad) - _MAX_NAMED:,} more'
    return ', '.join(bad)


def _count(values: ArrayStats) -> str:
    """'3 of 432 values', or 'all 432 values'."""
    if values.nonfinite == values.size:
        return f'all {values.size:,} values'
    return f'{values.nonfinite:,} of {values.size:,} values'


def define_flags() -> None:
    flags.DEFINE_string('workdir', None, 'Workdir of the run that stopped.', required=True)
    flags.DEFINE_string('checkpoint', 'latest', 'Where to begin: best, latest or a step.')
    flags.DEFINE_integer('max_steps', 1000, 'Number of steps to replay, at most.', lower_bound=1)


if __name__ == '__main__':
    cli.run(main, define_flags)
