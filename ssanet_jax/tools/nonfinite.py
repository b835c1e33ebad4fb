r"""Says which module was the first to turn non-finite in a run that stopped because it diverged.

    python -m ssanet_jax.tools.nonfinite --workdir=runs/digits

Trains on from a checkpoint, in memory, to the step that was bad, and computes this again with an
eye on what every module takes and gives, and on the gradients by these. The workdir stays as it
is. Run it where the run ran: on as many devices, with the same data and versions. Of a loss that
is finite, but above config.max_loss, it shows the largest gradients.
"""

import os

# TensorFlow only reads images here; it should do so without a word.
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from absl import flags
from etils import epath
from ml_collections import ConfigDict
from rich.console import Console
from rich.progress import track

from ssanet_jax import runtime
from ssanet_jax.config.validation import check, check_batch_size
from ssanet_jax.errors import ConfigError
from ssanet_jax.tables import Column, Table, show
from ssanet_jax.tools import cli
from ssanet_jax.trained.module_tracer import Values
from ssanet_jax.trained.nonfinite import Diagnosis, Place, first_nonfinite

FLAGS = flags.FLAGS

_NAMED = 3  # of what is not finite, before 'and 12 more'
_SHOWN = 5  # modules in the table
_SQUARE_OVERFLOWS = math.sqrt(float(jnp.finfo(jnp.float32).max))


def main(argv: list[str]) -> None:
    if argv[1:]:
        raise ConfigError(f'Unexpected argument {argv[1]!r}: every option begins with --.')
    folder = epath.Path(FLAGS.workdir)
    from ssanet_jax.trained.load import with_defaults
    from ssanet_jax.training.workdir import Workdir

    config = with_defaults(Workdir(folder).read_config())  # A mistake is found before TensorFlow.
    import tensorflow as tf

    tf.config.set_visible_devices([], 'GPU')  # They are JAX's.
    runtime.enable_compilation_cache()
    check(config)
    check_batch_size(config, jax.device_count())
    replay(config, folder, FLAGS.checkpoint, FLAGS.max_steps)


def replay(config: ConfigDict, folder: epath.Path, checkpoint: str, max_steps: int) -> None:
    """Trains from `checkpoint` to the first bad step, and prints what is found there."""
    from ssanet_jax import data
    from ssanet_jax.training import run_history, trainer_setup
    from ssanet_jax.training.workdir import Workdir

    info = data.dataset_info(config)
    run = trainer_setup.build(
        config, num_classes=info.num_classes, num_train_examples=info.num_train
    )
    console = Console(stderr=True, soft_wrap=True, highlight=False)
    for note in run_history.check_same_run(config, info, Workdir(folder), allow_config_change=True):
        console.print(note, markup=False)
    state = _restore(config, run, folder, checkpoint)
    start, last = int(state.step), run.plan.num_train_steps
    stop = min(start + max_steps, last)
    found = _bad_step(config, run, state, stop, console)
    if found is None:
        more = f' --max_steps={2 * max_steps} looks further.' if stop < last else ''
        print(f'None of the {stop - start:,} steps from {start:,} to {stop:,} is bad.{more}')
        return
    step, state, batch = found
    diagnosis = first_nonfinite(
        run.model,
        state,
        batch,
        loss=run.loss,
        preprocess=run.preprocess,
        mesh=run.mesh,
        dropout_seed=config.seed,
    )
    rate = float(run.schedule(step - 1))
    print(f'Step {step:,}: loss {diagnosis.loss:.4g}, learning rate {rate:.4g}.')
    print(*describe(diagnosis, config.max_loss), sep='\n')
    if math.isfinite(diagnosis.loss) and diagnosis.backward is None:
        show([largest_gradients(diagnosis)], 'table')


def _restore(config: ConfigDict, run: Any, folder: epath.Path, checkpoint: str) -> Any:
    """The state of a checkpoint, or the first, where there is none and 'latest' is asked for."""
    from ssanet_jax.training.checkpoint_reader import CheckpointReader
    from ssanet_jax.training.pretrained import load_weights

    state = run.init()
    with CheckpointReader(folder) as checkpoints:
        if checkpoints.steps() or checkpoint != 'latest':
            step = checkpoints.find(checkpoint)
            return checkpoints.restore_state(step, state)
    return load_weights(config, run, state) if config.init.weights else state


def _bad_step(config: ConfigDict, run: Any, state: Any, stop: int, console: Console) -> Any:
    """The first bad step up to `stop`, the state before it and its batch; or None."""
    from ssanet_jax import data
    from ssanet_jax.training.parallel import to_devices

    start, total = int(state.step), run.zero_metrics()
    batches = to_devices(data.train_batches(config, start_step=start), run.mesh)
    hidden = not console.is_terminal
    for _ in track(range(start, stop), 'replaying', console=console, disable=hidden):
        batch, before = next(batches), jax.tree.map(jnp.copy, state)  # The step donates it.
        state, total = run.train_step(state, batch, total)
        if bad := int(total.bad_step):
            return bad, before, batch
    return None


def describe(diagnosis: Diagnosis, max_loss: float) -> list[str]:
    """Lines that say what was not finite, and where it came from."""
    lines = []
    arrays_of = {'parameters': diagnosis.params, 'running statistics': diagnosis.batch_stats}
    for kind, arrays in arrays_of.items():
        if names := _nonfinite(arrays):
            lines.append(f'Not finite before the step: the {kind} {names}.')
    image, logits = diagnosis.calls[0].inputs, diagnosis.calls[0].outputs
    if diagnosis.forward:
        lines.append(f'First to turn non-finite: {_describe(diagnosis.forward, "input")}')
    elif image.nonfinite:
        lines.append(f'The preprocessed images are not finite: {_count(image)}.')
    elif not math.isfinite(diagnosis.loss):
        lines.append(
            f'Every module gives finite values, the network up to {logits.largest:.2g}; the loss '
            'made of them is not finite.'
        )
    elif diagnosis.backward:
        lines.append(
            'The forward pass is finite. First on the way back to turn non-finite: '
            f'{_describe(diagnosis.backward, "gradient")}'
        )
        lines.append(f'Not finite are the gradients of {_nonfinite(diagnosis.grads)}.')
    else:
        lines.append(_describe_finite(diagnosis, max_loss))
    return lines


def _describe(place: Place, given: str) -> str:
    """'layer3_1/bn2 (BatchNorm), 12 of 4,096 values; its input is finite, up to 3.2e+37.'"""
    if place.path is None:
        return f'the loss, {_count(place.made)}; the network gives up to {place.given.largest:.2g}.'
    name = f'{place.path} ({place.kind})' if place.path else f'the network ({place.kind}) itself'
    if place.submodule not in ('', place.path):
        name += f', where it meets {place.submodule}'
    known = f'; its {given} is finite, up to {place.given.largest:.2g}' if place.given.size else ''
    return f'{name}, {_count(place.made)}{known}.'


def _describe_finite(diagnosis: Diagnosis, max_loss: float) -> str:
    name, values = max(diagnosis.params.items(), key=lambda item: item[1].largest)
    norm = _norm(diagnosis.grads.values())
    finite = f'Everything is finite; the largest |parameter| is {values.largest:.2g}, in {name}'
    if diagnosis.loss > max_loss:
        return f'{finite}. The loss is above config.max_loss={max_loss:g}.'
    if norm > _SQUARE_OVERFLOWS:
        return f"{finite}. The gradient's norm, {norm:.2g}, is too large to be squared in float32."
    return f'{finite}. As computed here, with other rounding than in training, the step is good.'


def largest_gradients(diagnosis: Diagnosis) -> Table:
    """The modules whose own parameters have the gradients of the largest norm."""
    names = defaultdict(list)
    for name in diagnosis.grads:
        names[name.rpartition('/')[0]].append(name)
    rows = [
        (
            module,
            _norm(diagnosis.grads[name] for name in own),
            max(diagnosis.params[name].largest for name in own),
        )
        for module, own in names.items()
    ]
    rows.sort(key=lambda row: row[1], reverse=True)
    columns = [
        Column('module', left=True),
        Column('norm of the gradient', '{:.3g}'.format),
        Column('largest |parameter|', '{:.3g}'.format),
    ]
    return Table('Largest gradients', columns, rows[:_SHOWN])


def _norm(grads: Any) -> float:
    return math.hypot(*(values.norm for values in grads))


def _nonfinite(arrays: Mapping[str, Values]) -> str:
    """'conv1/kernel (3 of 432 values), bn1/bias (all 16 values) and 12 more'; '' for none."""
    bad = [f'{name} ({_count(values)})' for name, values in arrays.items() if values.nonfinite]
    if len(bad) > _NAMED:
        return f'{", ".join(bad[:_NAMED])} and {len(bad) - _NAMED:,} more'
    return ', '.join(bad)


def _count(values: Values) -> str:
    """'3 of 432 values', or 'all 432 values'."""
    if values.nonfinite == values.size:
        return f'all {values.size:,} values'
    return f'{values.nonfinite:,} of {values.size:,} values'


def define_flags() -> None:
    """Not at import: flags of several commands would collide."""
    flags.DEFINE_string('workdir', None, 'The run that stopped.', required=True)
    flags.DEFINE_string('checkpoint', 'latest', 'Where to begin: best, latest or a step.')
    flags.DEFINE_integer('max_steps', 1000, 'Steps to look at.', lower_bound=1)


if __name__ == '__main__':
    define_flags()
    cli.run(main)
