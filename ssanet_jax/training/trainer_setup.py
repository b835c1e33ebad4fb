"""Builds what a config describes: the model, the optimizer and the compiled steps."""

from collections.abc import Callable, Mapping
from functools import cache, partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssanet_jax.analysis.gates import GateShape, find_gates
from ssanet_jax.config import TrainPlan, base, make_plan
from ssanet_jax.config.fields import FIELDS
from ssanet_jax.config.validation import check_batch_norm_group_size
from ssanet_jax.errors import ConfigError
from ssanet_jax.models import Network, create_model
from ssanet_jax.models.batch_norm_folding import for_inference
from ssanet_jax.models.network import ModuleFn
from ssanet_jax.models.registry import split_name
from ssanet_jax.training import parallel, steps
from ssanet_jax.training.ema import AveragedState, make_average
from ssanet_jax.training.losses import LossFn, make_loss, on_mixed_targets
from ssanet_jax.training.metrics import METRICS, MetricFn, Metrics
from ssanet_jax.training.mixing import MixFn, make_mixing
from ssanet_jax.training.optimizer import check_train_only, make_optimizer, make_schedule
from ssanet_jax.training.steps import TrainState, init_state
from ssanet_jax.weights.convert import variable_shapes


class TrainerSetup(NamedTuple):
    """Everything that the training loop calls; none of it changes during training.

    Attributes:
      gates: the gates whose statistics are logged.
    """

    model: Network
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    plan: TrainPlan
    mesh: Mesh
    loss: LossFn
    metrics: Mapping[str, MetricFn]
    preprocess: steps.Preprocess
    mixing: MixFn | None
    average: steps.AverageFn | None
    train_step: parallel.TrainStepFn
    eval_step: parallel.EvalStepFn
    zero_metrics: Callable[[], Metrics]
    seed: int
    image_size: int
    dtype: jnp.dtype
    gates: dict[str, GateShape]

    def init(self) -> TrainState:
        """The state before the first step, replicated over the mesh."""

        def init(seed: int) -> TrainState:
            state = init_state(seed, model=self.model, tx=self.tx, image_size=self.image_size)
            return AveragedState.start(state) if self.average else state

        return jax.jit(init, static_argnums=0, out_shardings=parallel.replicated(self.mesh))(
            self.seed
        )

    def for_inference(self, state: TrainState) -> tuple['TrainerSetup', TrainState]:
        """Folds BatchNorms as `for_inference` does: evaluates faster, cannot train."""
        model, _ = for_inference(self.model, state.variables)
        eval_step = _eval_step(model, self.preprocess, self.metrics, self.mesh)
        folded = state.map_variables(lambda variables: for_inference(self.model, variables)[1])
        return self._replace(model=model, eval_step=eval_step), folded


def build(
    config: ConfigDict,
    *,
    num_classes: int,
    num_train_examples: int,
    mesh: Mesh | None = None,
    loss: LossFn | None = None,
    metrics: Mapping[str, MetricFn] | None = None,
    preprocess: steps.Preprocess | None = None,
    mixing: MixFn | None = None,
    attention: ModuleFn | None = None,
) -> TrainerSetup:
    """Builds what `config`, which has passed `check`, describes.

    Args:
      config: of the run.
      num_classes: of the dataset.
      num_train_examples: of the training split.
      mesh: of one axis, 'data'; by default all devices of all hosts.
      loss: per example, of logits [N, K] and labels [N]; by default that of `config.loss`.
      metrics: per-example functions to compute in addition to those of `METRICS`.
      preprocess: maps uint8 images [N, H, W, 3] to the model's input, on the device; by default
        normalization by `config.dataset.mean` and `std`.
      mixing: draws how images are mixed, as `mixing.draw`; by default that of `config.mix`.
      attention: see `build_model`.

    Raises:
      ConfigError: a field does not fit the model, the devices or the data.
    """
    mesh = parallel.data_mesh() if mesh is None else mesh
    check_batch_norm_group_size(config, mesh.size)
    plan = make_plan(config, num_train_examples)
    model = build_model(config, num_classes, mesh, attention)
    schedule = make_schedule(config.optimizer, plan)
    if config.optimizer.train_only:
        shapes = variable_shapes(model, config.dataset.image_size)
        check_train_only(config.optimizer, shapes['params'])
    tx: optax.GradientTransformation = make_optimizer(config.optimizer, schedule)
    if config.max_bad_steps:
        tx = optax.apply_if_finite(tx, config.max_bad_steps)
    loss = loss or make_loss(
        config.loss,
        label_smoothing=config.label_smoothing,
        target_threshold=config.target_threshold,
    )
    mixing = mixing or make_mixing(config.mix)
    loss = on_mixed_targets(loss) if mixing else loss
    average = make_average(config, plan)
    metrics = {**METRICS, **(metrics or {})}
    preprocess = preprocess or build_preprocess(config)
    train_step = partial(
        steps.train_step,
        model=model,
        tx=tx,
        loss=loss,
        preprocess=preprocess,
        metrics=metrics,
        mixing=mixing,
        seed=config.seed,
        micro_batches=config.micro_batches,
        average=average,
        max_loss=config.max_loss,
        max_bad_steps=config.max_bad_steps,
        exchange_dtype=jnp.dtype(config.exchange_dtype),
    )
    zero_metrics = partial(Metrics.zero, metrics, num_classes=num_classes)
    return TrainerSetup(
        model=model,
        tx=tx,
        schedule=schedule,
        plan=plan,
        mesh=mesh,
        loss=loss,
        metrics=metrics,
        preprocess=preprocess,
        mixing=mixing,
        average=average,
        train_step=parallel.parallel_train_step(train_step, mesh),
        eval_step=_eval_step(model, preprocess, metrics, mesh),
        zero_metrics=jax.jit(zero_metrics, out_shardings=parallel.replicated(mesh)),
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

    The same object for the same config, so that jit recognizes it as a static argument.
    """
    return _normalizer(tuple(config.dataset.mean), tuple(config.dataset.std))


@cache
def _normalizer(mean: tuple[float, ...], std: tuple[float, ...]) -> steps.Preprocess:
    return partial(steps.preprocess, mean=mean, std=std)


def _eval_step(
    model: nn.Module,
    preprocess: steps.Preprocess,
    metrics: Mapping[str, MetricFn],
    mesh: Mesh,
) -> parallel.EvalStepFn:
    step = partial(steps.eval_step, model=model, preprocess=preprocess, metrics=metrics)
    return parallel.parallel_eval_step(step, mesh)


def build_model(
    config: ConfigDict,
    num_classes: int,
    mesh: Mesh | None = None,
    attention: ModuleFn | None = None,
) -> Network:
    """Builds the network of `config.model`.

    Args:
      config: of the run.
      num_classes: outputs of the network.
      mesh: whose devices share BatchNorm statistics; without one, statistics are local.
      attention: makes the attention blocks, for a config.model.name without an attention prefix.

    Raises:
      ConfigError: `create_model` refuses the options, or they do not fit the image size.
    """
    model, defaults = config.model, base().model
    size = config.dataset.image_size
    names = [n.removeprefix('model.') for n, field in FIELDS.items() if field.network_option]
    options = {name: model[name] for name in names if model[name] != defaults[name]}
    if attention is not None:
        options['attention'] = attention
    try:
        kind, _ = split_name(model.name)
        network = create_model(
            model.name,
            num_classes=num_classes,
            dtype=jnp.dtype(config.dtype),
            attention_options=model[kind].to_dict() if kind else None,
            norm_options=_norm_options(model, mesh),
            **options,
        )
        # Shapes only: finds options that do not fit, such as groups that do not divide channels.
        jax.eval_shape(
            partial(network.init, train=False), jax.random.key(0), jnp.zeros((1, size, size, 3))
        )
    except ValueError as error:
        raise ConfigError(f'config.model: {error}') from error
    return network


def _norm_options(model: ConfigDict, mesh: Mesh | None) -> dict[str, Any]:
    options = {'momentum': model.batch_norm_momentum}
    if mesh is not None:
        options |= parallel.batch_norm_axis(model.batch_norm_group_size, mesh.size)
    if model.batch_norm_epsilon is not None:
        options['epsilon'] = model.batch_norm_epsilon
    return options
