"""Builds what a config describes: the model, the optimizer and the compiled steps."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from ssanet_jax.analysis.gates import GateShape, find_gates
from ssanet_jax.config import TrainPlan, make_plan
from ssanet_jax.config.sizes import eval_size, train_sizes
from ssanet_jax.config.validation import check_batch_norm_group_size
from ssanet_jax.errors import ConfigError
from ssanet_jax.models import Network
from ssanet_jax.models.batch_norm_folding import for_inference
from ssanet_jax.models.network import ModuleFn
from ssanet_jax.pretrained.preprocessing import Preprocessing
from ssanet_jax.training import parallel, steps
from ssanet_jax.training.ema import AveragedState, make_average
from ssanet_jax.training.losses import LossFn, make_loss, on_mixed_targets
from ssanet_jax.training.metrics import METRICS, MetricFn, Metrics
from ssanet_jax.training.mixing import MixFn, make_mixing
from ssanet_jax.training.model import build_model
from ssanet_jax.training.objective import Objective
from ssanet_jax.training.optimizer import check_train_only, make_optimizer, make_schedule
from ssanet_jax.training.steps import TrainState, init_state
from ssanet_jax.weights.convert import variable_shapes


class TrainerSetup(NamedTuple):
    """Everything that the training loop calls; none of it changes during training.

    Attributes:
      image_size: height and width of training images; of the largest if they grow.
      eval_size: height and width of images in evaluation.
      eval_flip: whether evaluation takes the mean over an image and its mirror image.
      gates: the gates whose statistics are logged.
    """

    model: Network
    tx: optax.GradientTransformation
    schedule: optax.Schedule
    plan: TrainPlan
    mesh: Mesh
    objective: Objective
    metrics: Mapping[str, MetricFn]
    average: steps.AverageFn | None
    train_step: parallel.TrainStepFn
    eval_step: parallel.EvalStepFn
    zero_metrics: Callable[[], Metrics]
    image_size: int
    eval_size: int
    eval_flip: bool
    gates: dict[str, GateShape]

    def init(self) -> TrainState:
        """The state before the first step, replicated over the mesh."""

        def init(seed: int) -> TrainState:
            state = init_state(seed, model=self.model, tx=self.tx, image_size=self.image_size)
            return AveragedState.start(state) if self.average else state

        return jax.jit(init, static_argnums=0, out_shardings=parallel.replicated(self.mesh))(
            self.objective.seed
        )

    def for_inference(self, state: TrainState) -> tuple['TrainerSetup', TrainState]:
        """Folds BatchNorms as `for_inference` does: evaluates faster, cannot train."""
        model, _ = for_inference(self.model, state.variables)
        eval_step = _eval_step(
            model, self.objective.preprocess, self.metrics, self.mesh, self.eval_flip
        )
        folded = state.map_variables(lambda variables: for_inference(self.model, variables)[1])
        return self._replace(model=model, eval_step=eval_step), folded

    def compile_ahead(self, config: ConfigDict, state: TrainState, total: Metrics) -> None:
        """Compiles the training step for images of all sizes from that of `state` on.

        Does nothing for one size, which the first step compiles. A TPU's compiler refuses here, and
        not after many epochs, what exceeds the memory.
        """
        step: Any = self.train_step
        sizes = train_sizes(config.dataset, self.plan, int(state.step))
        if len(sizes) > 1:
            for size in sizes:
                batch = parallel.batch_shapes(config.batch_size, size, self.mesh)
                step.lower(state, batch, total).compile()  # calls find it in the cache of jit


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
    preprocess = preprocess or Preprocessing.from_config(config.dataset).normalize
    objective = Objective(model, loss, preprocess, mixing, config.seed)
    train_step = partial(
        steps.train_step,
        objective=objective,
        tx=tx,
        metrics=metrics,
        micro_batches=config.micro_batches,
        average=average,
        max_loss=config.max_loss,
        max_bad_steps=config.max_bad_steps,
        all_reduce_dtype=jnp.dtype(config.all_reduce_dtype),
    )
    zero_metrics = partial(Metrics.zero, metrics, num_classes=num_classes)
    return TrainerSetup(
        model=model,
        tx=tx,
        schedule=schedule,
        plan=plan,
        mesh=mesh,
        objective=objective,
        metrics=metrics,
        average=average,
        train_step=parallel.parallel_train_step(train_step, mesh),
        eval_step=_eval_step(model, preprocess, metrics, mesh, config.dataset.eval_flip),
        zero_metrics=jax.jit(zero_metrics, out_shardings=parallel.replicated(mesh)),
        image_size=config.dataset.image_size,
        eval_size=eval_size(config.dataset),
        eval_flip=config.dataset.eval_flip,
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


def _eval_step(
    model: nn.Module,
    preprocess: steps.Preprocess,
    metrics: Mapping[str, MetricFn],
    mesh: Mesh,
    flip: bool,
) -> parallel.EvalStepFn:
    step = partial(steps.eval_step, model=model, preprocess=preprocess, metrics=metrics, flip=flip)
    return parallel.parallel_eval_step(step, mesh)
