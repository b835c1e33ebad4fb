"""The training loop."""

import contextlib
import shlex
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import jax
import numpy as np
from clu import parameter_overview
from etils import epath
from ml_collections import ConfigDict
from rich.console import Console

from ssanet_jax import data
from ssanet_jax.config import is_due
from ssanet_jax.config.validation import check_batch_size
from ssanet_jax.errors import DivergedError
from ssanet_jax.output import lossy_output
from ssanet_jax.training import data_check, trainer_setup
from ssanet_jax.training.checkpoints.writer import Checkpoints
from ssanet_jax.training.evaluation import BuildFn, evaluate, set_up
from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.monitoring import console as terminal
from ssanet_jax.training.monitoring.gate_log import GateLog
from ssanet_jax.training.monitoring.metric_log import MetricsLog
from ssanet_jax.training.monitoring.profiling import Stopwatch, Trace
from ssanet_jax.training.multihost import agreement
from ssanet_jax.training.multihost.hosts import raise_on_all_hosts
from ssanet_jax.training.multihost.preemption import PreemptionHandler
from ssanet_jax.training.parallel import to_devices
from ssanet_jax.training.start import initial_state, model_fits, resume
from ssanet_jax.training.steps import TrainState
from ssanet_jax.training.storage import data_files, run_history
from ssanet_jax.training.storage.atomic_io import write_text
from ssanet_jax.training.storage.workdir import Workdir
from ssanet_jax.training.trainer_setup import TrainerSetup

Evaluator = Callable[[TrainState, int], Mapping[str, float]]
TrainBatches = Callable[..., Iterator[Mapping[str, np.ndarray]]]  # as data.train_batches


@lossy_output()
def train_and_evaluate(
    config: ConfigDict,
    workdir: epath.PathLike,
    *,
    allow_config_change: bool = False,
    evaluators: Mapping[str, Evaluator] | None = None,
    build: BuildFn = trainer_setup.build,
    train_batches: TrainBatches = data.train_batches,
) -> TrainState:
    """Trains `config` in `workdir`, resuming from its newest good checkpoint if there is one.

    Leaves config.json, parameters.txt, checkpoints/, starts.jsonl, TensorBoard events,
    metrics.jsonl and summary.json. A run that was stopped or killed and started again leaves the
    same as one that was not.

    Args:
      config: of a recipe.
      workdir: a folder that all hosts see; created if missing.
      allow_config_change: resume with another config or other data than before.
      evaluators: functions of the state and the step, called on all hosts with each evaluation;
        their values are logged with it, as 'NAME/KEY'.
      build: builds the model and the steps; give `partial(trainer_setup.build, loss=...)` to swap
        the loss, the metrics, the preprocessing or the mesh.
      train_batches: yields this host's batches from a step on, a pure function of the config.

    Returns:
      The state after the last step.

    Raises:
      ConfigError: the config is invalid, or does not fit the data, the devices or the workdir.
      RunError: the run ended before its last step; see `ssanet_jax.errors`.
    """
    agreement.check_same_start(config, 'train')
    setup, info = set_up(config, build)
    check_batch_size(config, setup.mesh.size)
    folder, console = Workdir(workdir), terminal.make_console()
    with contextlib.ExitStack() as stack:
        raise_on_all_hosts(partial(_claim, folder, stack), 'the lock of the workdir')
        agreement.check_shared_workdir(folder.path)
        notes = raise_on_all_hosts(
            partial(
                run_history.check_same_run,
                config,
                info,
                folder,
                allow_config_change,
                partial(model_fits, folder, setup),
            ),
            'the comparison with the last start',
        )
        state = raise_on_all_hosts(
            partial(initial_state, config, setup, folder, notes), 'the initial weights'
        )
        total = setup.zero_metrics()
        checkpoints = stack.enter_context(Checkpoints(folder, keep=config.max_to_keep))
        state, total = resume(
            setup, state, total, checkpoints, folder, notes, new_optimizer=allow_config_change
        )
        agreement.check_same_state(int(state.step), state)
        notes += raise_on_all_hosts(
            partial(data_check.check, config, folder, console), 'the check of the data'
        )
        if jax.process_index() == 0:
            run_history.record(config, info, folder, int(state.step))
            table = parameter_overview.get_parameter_overview(state.params, include_stats=False)
            write_text(folder.parameters, table + '\n')
        terminal.announce(console, config, setup, info, state, notes)
        stack.enter_context(data_files.remembering_bad_files(config.dataset, folder))
        setup.compile_ahead(config, state, total)
        batches = train_batches(config, start_step=int(state.step))
        state = _train(
            config, setup, state, total, batches, evaluators or {}, checkpoints, folder, console
        )
        if jax.process_index() == 0:
            terminal.finish(console, config, setup, folder)
    return state


def _train(
    config: ConfigDict,
    setup: TrainerSetup,
    state: TrainState,
    total: Metrics,
    batches: Iterator[Mapping[str, np.ndarray]],
    evaluators: Mapping[str, Evaluator],
    checkpoints: Checkpoints,
    workdir: Workdir,
    console: Console,
) -> TrainState:
    start, stop = int(state.step), setup.plan.num_train_steps
    on_devices, watch = to_devices(batches, setup.mesh), Stopwatch()
    in_flight: deque[Metrics] = deque(maxlen=2)
    log = MetricsLog(workdir, start)
    with (
        Trace(config, workdir.profile, start) as trace,
        terminal.Progress(
            console, total=stop, start=start, batch_size=config.batch_size
        ) as progress,
        PreemptionHandler() as preemption,
    ):
        step, gates = start, GateLog(setup, log, console)

        def stop_if_requested() -> None:
            if preemption.requested():  # the save of this step may still be in progress
                checkpoints.save(step, (state, total.sums), wait=True)
                preemption.stop(step, workdir)

        preemption.begin(start)
        while True:
            if setup.plan.evaluates_at(step) and step not in checkpoints.evaluations:
                watch.pause(after=state)
                evaluation = evaluate(config, setup, state, stop_if_requested)
                for name, evaluator in evaluators.items():
                    own = evaluator(state, step)
                    evaluation |= {f'{name}/{key}': float(own[key]) for key in own}
                    stop_if_requested()
                log.write(step, 'eval', evaluation)
                progress.report(step, 'eval', evaluation)
                checkpoints.evaluated(step, evaluation)
            if step == stop:
                break

            step += 1
            trace.before(step)
            batch = next(on_devices)
            state, total = setup.train_step(state, batch, total)
            in_flight.append(total)
            jax.block_until_ready(in_flight[0])  # or batches pile up on the devices
            trace.after(step, total)
            watch.add(config.batch_size)
            progress.advance(step)
            stopping = preemption.after(step)
            checkpoints.raise_if_failed(step)

            if is_due(step, config.log_every_steps) or step == stop:
                speed = watch.lap(after=total)
                values = {**total.means(), 'learning_rate': float(setup.schedule(step - 1))}
                values['images_per_second'] = speed
                if config.max_bad_steps:
                    values['skipped_steps'] = int(state.opt_state.total_notfinite)
                log.write(step, 'train', values)
                progress.report(step, 'train', values)
                _check_finite(total, config, checkpoints)
                gates.write(step, state, batch)
                total = setup.zero_metrics()
            del batch  # frees its memory on the devices

            if stopping or setup.plan.saves_at(step):
                watch.pause(after=state)
                _check_finite(total, config, checkpoints)
                checkpoints.save(step, (state, total.sums), wait=stopping or step == stop)
            if stopping:
                preemption.stop(step, workdir)
            watch.resume(after=state)
        checkpoints.prune()
    return state


def _claim(workdir: Workdir, stack: contextlib.ExitStack) -> None:
    """Creates the workdir and locks it, on the first host; if it remains empty, removes it."""
    if jax.process_index() == 0:
        if workdir.make():
            stack.callback(workdir.remove_if_empty)
        stack.enter_context(workdir.lock())
        workdir.remove_partial_files()


def _check_finite(total: Metrics, config: ConfigDict, checkpoints: Checkpoints) -> None:
    """Raises DivergedError if a step of `total` was bad."""
    if bad := int(total.bad_step):
        workdir = str(checkpoints.directory.parent)
        saved = checkpoints.written()
        last = f'that of step {saved[-1]:,}' if saved else 'none'
        raise DivergedError(
            f'At step {bad:,} the loss or the gradient is not finite, or the loss is above '
            f'config.max_loss={config.max_loss:g}. The last good checkpoint in '
            f'{checkpoints.directory} is {last}. Lower config.optimizer.learning_rate '
            'and pass --allow_config_change, or start in a new workdir with '
            '--config.max_bad_steps=10, which skips non-finite steps; to find the '
            'module that fails first: '
            f'ssanet nonfinite {shlex.quote(f"--workdir={workdir}")}'
        )
