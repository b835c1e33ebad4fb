"""Trains and evaluates a config: `train_and_evaluate` and `evaluate_checkpoint`."""

import contextlib
import dataclasses
import json
from collections.abc import Callable
from functools import partial

import jax
from etils import epath
from ml_collections import ConfigDict
from rich.console import Console

from ssanet_jax import data
from ssanet_jax.analysis.macs import model_cost
from ssanet_jax.config import is_due
from ssanet_jax.config.validation import check, check_batch_size, check_same_model
from ssanet_jax.errors import ConfigError
from ssanet_jax.training import run_history, summary, trainer_setup
from ssanet_jax.training.atomic_io import replace_text
from ssanet_jax.training.checkpoint import Checkpoints
from ssanet_jax.training.divergence import check_good
from ssanet_jax.training.gate_log import GateLog
from ssanet_jax.training.lock import Lock, make_workdir
from ssanet_jax.training.logs import MetricsLog, Progress, Stopwatch, Trace
from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.metrics_file import finite
from ssanet_jax.training.parallel import to_devices, together
from ssanet_jax.training.preemption import PreemptionHandler
from ssanet_jax.training.pretrained import load_weights
from ssanet_jax.training.train_state import TrainState
from ssanet_jax.training.trainer_setup import TrainerSetup
from ssanet_jax.training.workdir import saved_config


def train_and_evaluate(
    config: ConfigDict, workdir: str, *, allow_config_change: bool = False
) -> TrainState:
    """Trains `config` in `workdir`, going on from its newest good checkpoint if there is one.

    Leaves config.json, checkpoints/, run_history.jsonl, TensorBoard events, metrics.jsonl and
    summary.json. A run that was stopped, or killed, and started again leaves the same as one that
    was not.

    Args:
      config: a recipe's.
      workdir: a folder that all hosts see; made if missing.
      allow_config_change: goes on with another config or other data than before.

    Returns:
      The state after the last step.

    Raises:
      ConfigError: the config is wrong, or does not fit the data, the devices or the workdir.
      RunError: see `ssanet_jax.errors` for why a run ends before its last step.
    """
    run, info = _set_up(config, training=True)
    folder, console = epath.Path(workdir), summary.console()
    notes = together(partial(run_history.check_same_run, config, info, folder, allow_config_change))
    state, total = together(partial(_init, config, run, folder)), run.zero_metrics()
    with contextlib.ExitStack() as stack:
        together(partial(_claim, folder, stack))
        checkpoints = stack.enter_context(Checkpoints(folder, keep=config.max_to_keep))
        start, damaged = checkpoints.newest_good()
        notes += [
            f'The checkpoint of step {step} is damaged: {reason} It is in {folder}/damaged now.'
            for step, reason in damaged.items()
        ]
        if (start or 0) > run.plan.num_train_steps:
            raise ConfigError(
                f'{folder} holds step {start}, but the run ends after '
                f'{run.plan.num_train_steps}; make it longer, or choose a new workdir.'
            )
        if start is None:
            notes += together(partial(run_history.check_nothing_lost, folder, run.plan))
        else:
            like = (state, total.sums())
            state, sums = together(partial(checkpoints.restore, start, like))
            total = dataclasses.replace(total, **sums)
        if jax.process_index() == 0:
            run_history.record(config, info, folder, start or 0)
        summary.announce(console, config, run, info, state, notes)
        state = _train(config, run, state, total, checkpoints, folder, console)
    if jax.process_index() == 0:
        summary.finish(console, config, run, folder)
    return state


def evaluate(
    config: ConfigDict,
    run: TrainerSetup,
    state: TrainState,
    before_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Means over every example of `config.dataset.eval_split`, each counted once."""
    total = run.zero_metrics()
    batches = data.eval_batches(config, config.dataset.eval_split)
    for batch in to_devices(batches, run.mesh):
        before_batch()
        total = run.eval_step(state, batch, total)
    return total.means()


def evaluate_checkpoint(
    config: ConfigDict, workdir: str, checkpoint: str
) -> dict[str, float | None]:
    """Evaluates a checkpoint of a run; prints a table and leaves evaluation.json in `workdir`.

    Args:
      config: the run's, perhaps with another `eval_batch_size` or `dataset.eval_split`.
      workdir: the run's.
      checkpoint: 'best', 'latest', a step, or 'init' for the weights of `config.init`, which need
        no run.

    Raises:
      ConfigError: there is no such checkpoint, or the config is wrong or of another model.
    """
    folder = epath.Path(workdir)
    if checkpoint == 'init':
        run, state, step = *_initial(config), 0
        make_workdir(folder)
    else:
        run, state, step = _restore(config, folder, checkpoint)
    metrics = finite({'step': step, **evaluate(config, *run.for_inference(state))})
    if jax.process_index() == 0:
        text = json.dumps({'split': config.dataset.eval_split, **metrics}, indent=2)
        replace_text(folder / 'evaluation.json', text + '\n')
    title = (
        f'{config.model.name}, step {step}, on {config.dataset.name} {config.dataset.eval_split}'
    )
    rows = summary.cost_rows(model_cost(run.model, run.image_size))
    summary.print_table(summary.console(), title, {'': metrics}, rows)
    return metrics


def _restore(
    config: ConfigDict, folder: epath.Path, checkpoint: str
) -> tuple[TrainerSetup, TrainState, int]:
    check_same_model(config, saved_config(folder))
    run, _ = _set_up(config, training=False)
    with Checkpoints(folder, read_only=True) as checkpoints:
        step = checkpoints.find(checkpoint)
        state, _ = checkpoints.restore(step, (run.init(), run.zero_metrics().sums()))
    return run, state, step


def _claim(folder: epath.Path, stack: contextlib.ExitStack) -> None:
    """Makes the workdir, and locks it, if this is the first host."""
    if jax.process_index() == 0:
        make_workdir(folder)
        stack.enter_context(Lock(folder))


def _initial(config: ConfigDict) -> tuple[TrainerSetup, TrainState]:
    if not config.init.weights:
        raise ConfigError('--checkpoint=init needs --config.init.weights=FILE; it is not set.')
    if config.init.head == 'new':
        raise ConfigError("config.init.head='new' would evaluate a random layer; train it first.")
    run, _ = _set_up(config, training=False)
    return run, load_weights(config, run, run.init())


def _train(
    config: ConfigDict,
    run: TrainerSetup,
    state: TrainState,
    total: Metrics,
    checkpoints: Checkpoints,
    folder: epath.Path,
    console: Console,
) -> TrainState:
    start, stop = int(state.step), run.plan.num_train_steps
    batches = to_devices(data.train_batches(config, start_step=start), run.mesh)
    watch = Stopwatch()
    with (
        MetricsLog(folder, start) as log,
        Trace(config, folder) as trace,
        Progress(console, total=stop, start=start, batch_size=config.batch_size) as progress,
        PreemptionHandler() as interruption,
    ):
        step, gates = start, GateLog(run, log, console)
        interruption.begin(start)
        while True:
            if run.plan.evaluates_at(step) and step not in checkpoints.evaluations:
                watch.pause(after=state)
                evaluation = evaluate(config, run, state, partial(interruption.check, step, folder))
                log.write(step, 'eval', evaluation)
                progress.report(step, 'eval', evaluation)
                checkpoints.evaluated(step, evaluation)
            if step == stop:
                break

            step += 1
            trace.before(step)
            batch = next(batches)
            state, total = run.train_step(state, batch, total)
            trace.after(step, total)
            watch.add(config.batch_size)
            progress.advance(step)
            stopping = interruption.after(step)

            if is_due(step, config.log_every_steps) or step == stop:
                values = {**total.means(), 'learning_rate': float(run.schedule(step - 1))}
                values['images_per_second'] = watch.lap()
                if config.max_bad_steps:
                    values['skipped_steps'] = int(state.opt_state.total_notfinite)
                log.write(step, 'train', values)
                progress.report(step, 'train', values)
                check_good(total, config, checkpoints)
                gates.write(step, state, batch)
                total = run.zero_metrics()
            del batch  # and with it the room that it takes on the devices

            if stopping or run.plan.saves_at(step):
                watch.pause(after=state)
                check_good(total, config, checkpoints)
                checkpoints.save(step, (state, total.sums()), wait=stopping or step == stop)
            if stopping:
                interruption.stop(step, folder)
            watch.resume(after=state)
        checkpoints.prune()
    return state


def _set_up(config: ConfigDict, *, training: bool) -> tuple[TrainerSetup, data.DatasetInfo]:
    check(config)
    if training:
        check_batch_size(config, jax.device_count())
    if jax.process_count() > 1:  # The first prepares small sets before the others look.
        together(lambda: data.dataset_info(config) if jax.process_index() == 0 else None)
    return together(partial(_build, config))


def _build(config: ConfigDict) -> tuple[TrainerSetup, data.DatasetInfo]:
    info = data.dataset_info(config)
    run = trainer_setup.build(
        config, num_classes=info.num_classes, num_train_examples=info.num_train
    )
    return run, info


def _init(config: ConfigDict, run: TrainerSetup, folder: epath.Path) -> TrainState:
    """The state before the first step; weights are read before the workdir is made."""
    state = run.init()
    if config.init.weights and not run_history.has_checkpoints(folder):
        return load_weights(config, run, state)
    return state
