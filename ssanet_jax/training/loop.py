"""Trains and evaluates a config: `train_and_evaluate` and `evaluate_checkpoint`."""

import json

import jax
from etils import epath
from jax.experimental import multihost_utils
from ml_collections import ConfigDict
from rich.console import Console

from ssanet_jax import data
from ssanet_jax.analysis.cost import model_cost
from ssanet_jax.checks import check, check_batch_size, check_same_run
from ssanet_jax.config import ConfigError, is_due
from ssanet_jax.training import experiment, report
from ssanet_jax.training.checkpoint import Checkpoints
from ssanet_jax.training.experiment import Experiment
from ssanet_jax.training.initial import load_weights
from ssanet_jax.training.logs import MetricsLog, Progress, Stopwatch, Trace, finite, replace_text
from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.parallel import to_devices
from ssanet_jax.training.saved import saved_config
from ssanet_jax.training.state import TrainState


def train_and_evaluate(config: ConfigDict, workdir: str) -> TrainState:
    """Trains `config` in `workdir`, going on from its newest checkpoint if there is one.

    Leaves config.json, checkpoints/, TensorBoard events, metrics.jsonl and summary.json.
    A run that was stopped and started again leaves the same as one that was not.

    Returns:
      The state after the last step.

    Raises:
      ConfigError: the config is wrong, or does not fit the data or the devices.
    """
    run, info = _set_up(config, training=True)
    folder, console = epath.Path(workdir), _console()
    _make(folder)
    with Checkpoints(folder / 'checkpoints', keep=config.keep_checkpoints) as checkpoints:
        start = checkpoints.latest_step()
        if start is not None:
            saved = saved_config(folder)
            _check_same_order(info.order, saved.pop('data_order', info.order))
            check_same_run(config, saved)
        if (start or 0) > run.plan.num_train_steps:
            raise ConfigError(
                f'{folder} holds step {start}, but the run ends after '
                f'{run.plan.num_train_steps}; make it longer, or choose a new workdir.'
            )
        state, total = _restore_or_init(config, run, checkpoints, start)
        if jax.process_index() == 0:
            fields = {**json.loads(config.to_json_best_effort()), 'data_order': info.order}
            replace_text(folder / 'config.json', json.dumps(fields, indent=2) + '\n')
        report.announce(console, config, run, info, state)
        state = _train(config, run, state, total, checkpoints, folder, console)
    if jax.process_index() == 0:
        report.finish(console, config, run, folder)
    return state


def evaluate(config: ConfigDict, run: Experiment, state: TrainState) -> dict[str, float]:
    """Means over every example of `config.dataset.eval_split`, each counted once."""
    total = run.zero_metrics()
    batches = data.eval_batches(config, config.dataset.eval_split)
    for batch in to_devices(batches, run.mesh):
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
        _make(folder)
    else:
        run, state, step = _restore(config, folder, checkpoint)
    metrics = finite({'step': step, **evaluate(config, *run.for_inference(state))})
    if jax.process_index() == 0:
        text = json.dumps({'split': config.dataset.eval_split, **metrics}, indent=2)
        replace_text(folder / 'evaluation.json', text + '\n')
    title = (
        f'{config.model.name}, step {step}, on {config.dataset.name} {config.dataset.eval_split}'
    )
    rows = report.cost_rows(model_cost(run.model, run.image_size))
    report.print_table(_console(), title, {'': metrics}, rows)
    return metrics


def _restore(
    config: ConfigDict, folder: epath.Path, checkpoint: str
) -> tuple[Experiment, TrainState, int]:
    check_same_run(config, saved_config(folder), only=('model.', 'optimizer.'))
    run, _ = _set_up(config, training=False)
    with Checkpoints(folder / 'checkpoints', read_only=True) as checkpoints:
        step = checkpoints.find(checkpoint)
        state, _ = checkpoints.restore(step, (run.init(), run.zero_metrics()))
    return run, state, step


def _make(folder: epath.Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f'--workdir={folder} cannot be made a folder: {error}.') from error


def _initial(config: ConfigDict) -> tuple[Experiment, TrainState]:
    if not config.init.weights:
        raise ConfigError('--checkpoint=init needs --config.init.weights=FILE; it is not set.')
    if config.init.head == 'new':
        raise ConfigError("config.init.head='new' would evaluate a random layer; train it first.")
    run, _ = _set_up(config, training=False)
    return run, load_weights(config, run, run.init())


def _train(
    config: ConfigDict,
    run: Experiment,
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
    ):
        for step in range(start + 1, stop + 1):
            trace.before(step)
            state, total = run.train_step(state, next(batches), total)
            trace.after(step, total)
            watch.add(config.batch_size)
            progress.advance(step)

            if is_due(step, config.log_every_steps) or step == stop:
                values = {**total.means(), 'learning_rate': float(run.schedule(step - 1))}
                values['images_per_second'] = watch.lap()
                log.write(step, 'train', values)
                progress.report(step, 'train', values)
                total = run.zero_metrics()

            evaluation = None
            if is_due(step, run.plan.eval_every_steps) or step == stop:
                watch.pause(after=state)
                evaluation = evaluate(config, run, state)
                log.write(step, 'eval', evaluation)
                progress.report(step, 'eval', evaluation)

            if evaluation or is_due(step, run.plan.checkpoint_every_steps):
                watch.pause(after=state)
                checkpoints.save(step, (state, total), evaluation)
            watch.resume(after=state)
    return state


def _set_up(config: ConfigDict, *, training: bool) -> tuple[Experiment, data.DatasetInfo]:
    check(config)
    if training:
        check_batch_size(config, jax.device_count())
    try:
        if jax.process_index() == 0:
            data.dataset_info(config)  # Prepares small sets, before the other hosts look.
    finally:  # Where it fails, the other hosts fail alike, at once.
        if jax.process_count() > 1:
            multihost_utils.sync_global_devices('data prepared')
    info = data.dataset_info(config)
    run = experiment.build(config, num_classes=info.num_classes, num_train_examples=info.num_train)
    return run, info


def _check_same_order(now: str, before: str) -> None:
    if now != before:
        raise ConfigError(
            f'The run in this workdir read its images in the order of {before}, and now it would '
            f'be that of {now}: some would come twice, and some not at all. Go back to {before}, '
            'or choose a new workdir.'
        )


def _restore_or_init(
    config: ConfigDict, run: Experiment, checkpoints: Checkpoints, step: int | None
) -> tuple[TrainState, Metrics]:
    """The state and the metrics summed since the last log line, which a checkpoint holds too."""
    state, total = run.init(), run.zero_metrics()
    if step is not None:
        return checkpoints.restore(step, (state, total))
    return (load_weights(config, run, state) if config.init.weights else state), total


def _console() -> Console:
    """Prints on the first host only, and plain text in notebooks, which cannot move a bar."""
    plain = False if Console().is_jupyter else None
    return Console(quiet=jax.process_index() != 0, force_jupyter=False, force_terminal=plain)
