"""Trains one run of a study and records its outputs on the evaluation split."""

import shutil
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from etils import epath
from ml_collections import ConfigDict

from ssanet_jax import data
from ssanet_jax.analysis.macs import model_cost
from ssanet_jax.atomic_write import atomic_write
from ssanet_jax.study.corruptions import CORRUPTIONS
from ssanet_jax.study.definition import Study
from ssanet_jax.study.folder import RunRecord, StudyFolder
from ssanet_jax.training import loop, parallel, trainer_setup
from ssanet_jax.training.steps import TrainState, predict
from ssanet_jax.training.storage.lock import Lock
from ssanet_jax.training.storage.workdir import Workdir
from ssanet_jax.training.trainer_setup import TrainerSetup


def run(study: Study, variant: str, seed: int, folder: StudyFolder) -> RunRecord | None:
    """Trains a run, or continues it, writes its record and removes its workdir.

    Returns:
      The record, or None if there is one already.

    Raises:
      WorkdirInUseError: another process has this run.
      ConfigError, RunError: as `loop.train_and_evaluate`.
    """
    workdir = folder.workdir(variant, seed)
    folder.work.mkdir(parents=True, exist_ok=True)
    with Lock(epath.Path(f'{workdir}.lock')):
        if folder.run_path(variant, seed).exists():
            return None
        record, labels = train(study, variant, seed, Workdir(workdir))
        if not folder.labels.exists():
            with atomic_write(folder.labels) as temporary, temporary.open('wb') as file:
                np.save(file, labels)
        folder.write_run(variant, seed, record)
        shutil.rmtree(workdir)
        return record


def train(study: Study, variant: str, seed: int, workdir: Workdir) -> tuple[RunRecord, np.ndarray]:
    """Trains a run in `workdir`, or continues it; returns its record and the test labels [N].

    Raises:
      ConfigError, RunError: as `loop.train_and_evaluate`.
    """
    config = study.run_config(variant, seed)
    setups: list[TrainerSetup] = []

    def build(*args: Any, **kwargs: Any) -> TrainerSetup:
        attention = study.variants[variant].attention
        setups.append(trainer_setup.build(*args, attention=attention, **kwargs))
        return setups[-1]

    state = loop.train_and_evaluate(config, workdir, build=build)
    logged = [line for line in workdir.read_metrics() if line['split'] == 'train']
    steps = np.array([line['step'] for line in logged])
    rates = np.array([line['images_per_second'] for line in logged])
    timed = rates > 0  # no image was timed where the first step after a start is logged
    images = np.diff(steps, prepend=0) * config.batch_size
    seconds = (images[timed] / rates[timed]).sum()
    rate = images[timed].sum() / seconds if seconds else 0.0
    log_probs, labels, predictions = evaluate(config, setups[-1], state, study.corruptions)
    record = RunRecord(
        log_probs=log_probs.astype(np.float16),
        steps=steps.astype(np.int32),
        train_loss=np.array([line['loss'] for line in logged], np.float32),
        predictions=predictions.astype(np.uint16),
        images_per_second=float(rate),
        seconds=float(images.sum() / rate if rate else 0.0),
    )
    return record, labels


def evaluate(
    config: ConfigDict, setup: TrainerSetup, state: TrainState, corruptions: Sequence[str]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Outputs for every example of the evaluation split but undecodable images.

    Returns:
      Log-probabilities float32 [N, K], labels int32 [N], and the classes predicted for each
      corruption of the images, int [C, N].
    """
    setup, state = setup.for_inference(state.eval_states[''])

    @jax.jit
    def log_softmax(variables: Any, images: jax.Array) -> jax.Array:
        preprocess = setup.objective.preprocess
        logits = predict(variables, images, setup.model, preprocess, flip=setup.eval_flip)
        return jax.nn.log_softmax(logits.astype(jnp.float32))

    clean, labels, predicted, first = [], [], [], 0
    for batch in data.eval_batches(config, config.dataset.eval_split):
        images, mask = batch['image'], batch['mask'] & (batch['label'] >= 0)
        clean.append(np.asarray(log_softmax(state.variables, images))[mask])
        labels.append(batch['label'][mask])
        corrupted = (CORRUPTIONS[name](images, first) for name in corruptions)
        classes = [np.asarray(log_softmax(state.variables, x)).argmax(-1) for x in corrupted]
        predicted.append(np.array(classes, int).reshape(-1, len(images))[:, mask])
        first += len(images)
    return np.concatenate(clean), np.concatenate(labels), np.concatenate(predicted, axis=1)


def cost(study: Study, variant: str) -> dict[str, int]:
    """Parameters and MACs of a variant, and memory of its training step in bytes."""
    config = study.run_config(variant, study.seeds[0])
    config.dataset.initial_size = -1  # the largest images need most memory
    info = data.dataset_info(config)
    setup = trainer_setup.build(
        config,
        num_classes=info.num_classes,
        num_train_examples=info.num_train,
        attention=study.variants[variant].attention,
        mesh=parallel.local_mesh(None if jax.default_backend() == 'tpu' else 1),  # of one worker
    )
    counts = model_cost(setup.model, setup.eval_size)
    step: Any = setup.train_step
    batch = parallel.batch_shapes(config.batch_size, setup.image_size, setup.mesh)
    shapes = jax.eval_shape(setup.init), batch, jax.eval_shape(setup.zero_metrics)
    memory = step.lower(*shapes).compile().memory_analysis()
    return {
        'parameters': counts.parameters,
        'macs': counts.macs,
        'memory_bytes': memory.argument_size_in_bytes + memory.temp_size_in_bytes,
    }
