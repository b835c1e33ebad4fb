"""What a config describes, built: the model, the optimizer and the compiled steps."""

import dataclasses
from collections.abc import Callable
from functools import cache, partial
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssanet_jax.analysis.gates import GateShape, find_gates
from ssanet_jax.config import TrainPlan, base, make_plan
from ssanet_jax.config.validation import check_batch_norm_group_size
from ssanet_jax.errors import ConfigError
from ssanet_jax.models import Network, create_model
from ssanet_jax.models.batch_norm_folding import for_inference
from ssanet_jax.models.registry import split_name
from ssanet_jax.training import parallel, steps
from ssanet_jax.training.losses import cross_entropy
from ssanet_jax.training.metrics import Metrics
from ssanet_jax.training.optimizer import check_train_only, make_optimizer, make_schedule
from ssanet_jax.training.train_state import TrainState, init_state
from ssanet_jax.weights.convert import variable_shapes


class TrainerSetup(NamedTuple):
    """Everything that a loop calls; nothing in here changes during training."""

    model: Network
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    plan: TrainPlan
    mesh: Mesh
    train_step: parallel.TrainStepFn
    eval_step: parallel.EvalStepFn
    preprocess: steps.Preprocess
    zero_metrics: Callable[[], Metrics]
    seed: int
    image_size: int
    dtype: jnp.dtype
    gates: dict[str, GateShape]  # whose statistics are logged

    def init(self) -> TrainState:
        """The state before the first step, replicated over the mesh."""
        init = partial(init_state, model=self.model, tx=self.tx, image_size=self.image_size)
        return jax.jit(init, static_argnums=0, out_shardings=parallel.replicated(self.mesh))(
            self.seed
        )

    def for_inference(self, state: TrainState) -> tuple['TrainerSetup', TrainState]:
        """The same in the form of `inference.for_inference`: evaluates faster, cannot train."""
        model, variables = for_inference(self.model, state.variables)
        run = self._replace(model=model, eval_step=_eval_step(model, self.preprocess, self.mesh))
        return run, dataclasses.replace(state, **variables)


def build(config: ConfigDict, *, num_classes: int, num_train_examples: int) -> TrainerSetup:
    """Builds what `config`, which has passed `check`, describes, on all devices there are.

    Raises:
      ConfigError: a field does not fit the model, the devices or the data.
    """
    check_batch_norm_group_size(config, jax.device_count())
    plan = make_plan(config, num_train_examples)
    model = build_model(config, num_classes)
    schedule = make_schedule(config.optimizer, plan)
    if config.optimizer.train_only:
        shapes = variable_shapes(model, config.dataset.image_size)
        check_train_only(config.optimizer, shapes['params'])
    tx = make_optimizer(config.optimizer, schedule)
    if config.max_bad_steps:
        tx = optax.apply_if_finite(tx, config.max_bad_steps)
    mesh = parallel.data_mesh()
    preprocess = build_preprocess(config)
    loss = partial(cross_entropy, label_smoothing=config.label_smoothing)
    train_step = partial(
        steps.train_step,
        model=model,
        tx=tx,
        loss=loss,
        preprocess=preprocess,
        dropout_seed=config.seed,
        max_loss=config.max_loss,
        max_bad_steps=config.max_bad_steps,
    )
    return TrainerSetup(
        model=model,
        tx=tx,
        schedule=schedule,
        plan=plan,
        mesh=mesh,
        train_step=parallel.parallel_train_step(train_step, mesh),
        eval_step=_eval_step(model, preprocess, mesh),
        preprocess=preprocess,
        zero_metrics=jax.jit(Metrics.zero, out_shardings=parallel.replicated(mesh)),
        seed=config.seed,
        image_size=config.dataset.image_size,
        dtype=jnp.dtype(config.dtype),
        gates=_gates(config, model) if config.log_gates else {},
    )


def _gates(config: ConfigDict, model: Network) -> dict[str, GateShape]:
    try:
        return find_gates(model, config.dataset.image_size)
    except ValueError as error:
        raise ConfigError(
            f'config.log_gates=True, but {config.model.name} has no gates; leave it out, or choose '
            "a config.model.name with attention, as 'ssa_resnet50'."
        ) from error


def build_preprocess(config: ConfigDict) -> steps.Preprocess:
    """Maps uint8 images [N, H, W, 3] to the model's input, on the device.

    The same object for the same config, so that jit recognises it as a static argument.
    """
    return _normalizer(tuple(config.dataset.mean), tuple(config.dataset.std))


@cache
def _normalizer(mean: tuple[float, ...], std: tuple[float, ...]) -> steps.Preprocess:
    return partial(steps.preprocess, mean=mean, std=std)


def _eval_step(model: nn.Module, preprocess: steps.Preprocess, mesh: Mesh) -> parallel.EvalStepFn:
    step = partial(steps.eval_step, model=model, preprocess=preprocess)
    return parallel.parallel_eval_step(step, mesh)


# Fields of config.model that a network is given where they are not the defaults.
_NETWORK_OPTIONS = (
    'stem',
    'dropout',
    'variant',
    'tail',
    'zero_init_residual',
    'attention_stages',
    'attention_blocks',
    'attention_position',
)


def build_model(config: ConfigDict, num_classes: int) -> Network:
    """The network of `config.model`; raises ConfigError where create_model refuses it."""
    model, defaults = config.model, base().model
    size = config.dataset.image_size
    norm_options = {
        'momentum': model.batch_norm_momentum,
        **parallel.batch_norm_axis(model.batch_norm_group_size),
    }
    if model.batch_norm_epsilon is not None:
        norm_options['epsilon'] = model.batch_norm_epsilon
    options = {name: model[name] for name in _NETWORK_OPTIONS if model[name] != defaults[name]}
    try:
        kind, _ = split_name(model.name)
        network = create_model(
            model.name,
            num_classes=num_classes,
            dtype=jnp.dtype(config.dtype),
            attention_options=model[kind].to_dict() if kind else None,
            norm_options=norm_options,
            **options,
        )
        # Shapes only: finds what does not fit, as groups that do not divide the channels.
        jax.eval_shape(
            partial(network.init, train=False), jax.random.key(0), jnp.zeros((1, size, size, 3))
        )
    except ValueError as error:
        raise ConfigError(f'config.model: {error}') from error
    return network
