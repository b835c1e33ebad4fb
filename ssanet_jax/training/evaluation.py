"""Evaluates a state, or a checkpoint of a run."""

from collections.abc import Callable
from functools import partial

import jax
from etils import epath
from ml_collections import ConfigDict

from ssanet_jax import data
from ssanet_jax.analysis.macs import model_cost
from ssanet_jax.config.validation import check, check_same_model
from ssanet_jax.errors import ConfigError
from ssanet_jax.output import lossy_output
from ssanet_jax.training import trainer_setup
from ssanet_jax.training.checkpoints.reader import read_checkpoint
from ssanet_jax.training.initial_weights import load_weights
from ssanet_jax.training.monitoring import console as terminal
from ssanet_jax.training.multihost import agreement, hosts
from ssanet_jax.training.multihost.hosts import raise_on_all_hosts
from ssanet_jax.training.parallel import to_devices
from ssanet_jax.training.steps import TrainState
from ssanet_jax.training.storage.atomic_io import write_json
from ssanet_jax.training.storage.workdir import Workdir, finite
from ssanet_jax.training.trainer_setup import TrainerSetup

BuildFn = Callable[..., TrainerSetup]  # as trainer_setup.build


def evaluate(
    config: ConfigDict,
    setup: TrainerSetup,
    state: TrainState,
    before_batch: Callable[[], None] = lambda: None,
) -> dict[str, float]:
    """Means over every example of `config.dataset.eval_split`, each counted once.

    Of a state with averages, those are evaluated, and the raw variables as 'raw/top1' etc.
    """
    totals = {prefix: setup.zero_metrics() for prefix in state.eval_states}
    batches = data.eval_batches(config, config.dataset.eval_split)
    for batch in to_devices(batches, setup.mesh):
        before_batch()
        before = totals
        totals = {
            prefix: setup.eval_step(variant, batch, before[prefix])
            for prefix, variant in state.eval_states.items()
        }
        jax.block_until_ready(before)  # or batches pile up on the devices
    means = {f'{p}{name}': v for p, total in totals.items() for name, v in total.means().items()}
    means.pop('raw/num_examples', None)
    return means


@lossy_output()
def evaluate_checkpoint(
    config: ConfigDict, workdir: epath.PathLike, checkpoint: str
) -> dict[str, float | None]:
    """Evaluates a checkpoint of a run; prints a table and writes evaluation.json in `workdir`.

    Args:
      config: of the run; fields that only evaluation reads, such as `dataset.eval_split`, and
        fields that it does not read may differ.
      workdir: of the run.
      checkpoint: 'best', 'latest', a step, or 'init' for the weights of `config.init`, which need
        no run.

    Raises:
      ConfigError: there is no such checkpoint, or the config is invalid, of another model or of
        other data.
    """
    agreement.check_same_start(config, f'evaluate {checkpoint}')
    folder = Workdir(workdir)
    if checkpoint == 'init':
        setup, state, step = *_initial(config), 0
        folder.make()
    else:
        setup, state, step = _restore(config, folder, checkpoint)
    agreement.check_same_state(step, state)
    metrics = finite({'step': step, **evaluate(config, *setup.for_inference(state))})
    if jax.process_index() == 0:
        write_json(folder.evaluation, {'split': config.dataset.eval_split, **metrics})
    title = (
        f'{config.model.name}, step {step}, on {config.dataset.name} {config.dataset.eval_split}'
    )
    rows = terminal.cost_rows(model_cost(setup.model, setup.eval_size), setup.eval_size)
    terminal.print_table(terminal.make_console(), title, {'': metrics}, rows)
    return metrics


def _restore(
    config: ConfigDict, workdir: Workdir, checkpoint: str
) -> tuple[TrainerSetup, TrainState, int]:
    check_same_model(config, workdir.read_config())
    setup, _ = set_up(config, trainer_setup.build)
    like = setup.init(), None
    return read_checkpoint(
        workdir, checkpoint, lambda reader, step: (setup, reader.restore_model(step, like)[0], step)
    )


def _initial(config: ConfigDict) -> tuple[TrainerSetup, TrainState]:
    if not config.init.weights:
        raise ConfigError('--checkpoint=init needs --config.init.weights=FILE; it is not set.')
    if config.init.head == 'new':
        raise ConfigError("config.init.head='new' would evaluate a random layer; train it first.")
    setup, _ = set_up(config, trainer_setup.build)
    say = partial(terminal.say, terminal.make_console())
    return setup, load_weights(config, setup, setup.init(), say)


def set_up(config: ConfigDict, build: BuildFn) -> tuple[TrainerSetup, data.DatasetInfo]:
    """Checks the config, reads the dataset's sizes and builds the model and the steps.

    Raises:
      ConfigError: the config is invalid, or several hosts disagree on the data.
    """
    check(config)
    if hosts.several():  # The first host prepares small datasets before the others open them.
        raise_on_all_hosts(
            lambda: data.dataset_info(config) if jax.process_index() == 0 else None, 'the dataset'
        )
    setup, info = raise_on_all_hosts(partial(_build, config, build), 'the model')
    agreement.check_same_data(info)
    return setup, info


def _build(config: ConfigDict, build: BuildFn) -> tuple[TrainerSetup, data.DatasetInfo]:
    info = data.dataset_info(config)
    return build(config, num_classes=info.num_classes, num_train_examples=info.num_train), info
