"""Records each start of a run, and compares it with the one before."""

import json
import os
import socket
import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
from ml_collections import ConfigDict

from ssanet_jax.config.validation import changed_fields
from ssanet_jax.errors import ConfigError
from ssanet_jax.output import timestamp
from ssanet_jax.training.multihost.agreement import versions
from ssanet_jax.training.storage.atomic_io import write_json
from ssanet_jax.training.storage.workdir import Workdir
from ssanet_jax.version import __version__

if TYPE_CHECKING:  # it imports TFDS
    from ssanet_jax.data import DatasetInfo


def check_same_run(
    config: ConfigDict,
    info: 'DatasetInfo',
    workdir: Workdir,
    allow_config_change: bool,
    model_fits: Callable[[], bool] = lambda: True,
) -> list[str]:
    """Checks that the run in `workdir`, if it has checkpoints, is the one that starts now.

    Args:
      config: of this start.
      info: describes its data.
      workdir: of the run.
      allow_config_change: whether the run may go on with another config or other data.
      model_fits: whether it could, as the parameters in its checkpoint fit the network.

    Returns:
      Notes for the user: changes that do not affect the run's meaning, or that were allowed.

    Raises:
      ConfigError: listing the changes that would affect its meaning.
    """
    if not workdir.checkpoint_steps():
        return []
    saved = workdir.read_config()
    order = saved.pop('data_order', info.order)
    changed, notes = changed_fields(config, saved)
    if order != info.order:
        changed.append(
            f'the example order changed from {order} to {info.order}; some images would be '
            'repeated and others skipped'
        )
    if before := workdir.read_starts()[-1:]:
        from ssanet_jax.training.storage import data_files  # imports TFDS

        now = _environment(0, info)
        notes += _changes(before[0], now)
        changed += _batch_norm_changes(
            config, before[0].get('devices', now['devices']), now['devices']
        )
        if before[0].get('dataset') != now['dataset'] and not data_files.only_bad_ones_removed(
            config.dataset, workdir, info.class_names
        ):
            changed.append(f'its dataset was {before[0].get("dataset")} and is {now["dataset"]}')
    if changed and not allow_config_change:
        remedy = 'Use a new workdir, restore the old values, or pass --allow_config_change.'
        if not model_fits():
            remedy = 'Use a new workdir, or restore the old values.'
        raise ConfigError(
            f'This workdir belongs to a different run: {"; ".join(changed)}. {remedy}'
        )
    return [f'Changed since the last start: {text}.' for text in changed + notes]


def batch_norm_images(config: ConfigDict, num_devices: int) -> int:
    """Training images that one BatchNorm statistic covers."""
    group, images = config.model.batch_norm_group_size, config.batch_size // config.micro_batches
    return images if group == -1 else images * group // num_devices


def _batch_norm_changes(config: ConfigDict, before: int, now: int) -> list[str]:
    """Describes how another number of devices changes what BatchNorm's statistics cover."""
    group = config.model.batch_norm_group_size
    images = [batch_norm_images(config, devices) for devices in (before, now)]
    if images[0] == images[1]:
        return []
    return [
        f'each BatchNorm statistic was of {images[0]} images, on {before} devices with '
        f'model.batch_norm_group_size={group}, and is of {images[1]}, on {now}'
    ]


def check_nothing_lost(workdir: Workdir) -> list[str]:
    """Checks that a workdir without a checkpoint lost none; returns notes for the user.

    Raises:
      ConfigError: the run finished, a start resumed from a checkpoint, or there were two
        evaluations, each preceded by a save that first waits for the previous save.
    """
    lines = workdir.read_metrics()
    if not lines:
        return []
    metrics = f'{workdir} has metrics up to step {lines[-1]["step"]}, but no checkpoint'
    evaluations = sum(line['split'] == 'eval' for line in lines)
    resumed = any(start.get('step') for start in workdir.read_starts())
    if resumed or evaluations > 1 or workdir.summary.exists():
        raise ConfigError(f'{metrics}. Put checkpoints/ back, or use a new workdir.')
    return [f'{metrics}; starting over.']


def record(config: ConfigDict, info: 'DatasetInfo', workdir: Workdir, step: int) -> None:
    """Writes config.json and classes.json and appends to starts.jsonl; raises SaveError."""
    write_json(
        workdir.config, {**json.loads(config.to_json_best_effort()), 'data_order': info.order}
    )
    write_json(workdir.classes, info.class_names, indent=0)
    workdir.write_starts([*workdir.read_starts(), _environment(step, info)])


def _environment(step: int, info: 'DatasetInfo') -> dict[str, Any]:
    return {
        'time': timestamp(),
        'host': socket.gethostname(),
        'pid': os.getpid(),
        'step': step,
        'hosts': jax.process_count(),
        'devices': jax.device_count(),
        'device_kind': jax.devices()[0].device_kind,
        'dataset': info.fingerprint,
        'versions': {'ssanet_jax': __version__, 'python': sys.version.split()[0], **versions()},
    }


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describes the differences of machines and versions between two starts."""
    flat_before, flat_now = (
        {name: start.get(name) for name in ('hosts', 'devices', 'device_kind')}
        | start.get('versions', {})
        for start in (before, now)
    )
    return [
        f'{name} was {flat_before.get(name)} and is {value}'
        for name, value in flat_now.items()
        if flat_before.get(name) != value
    ]
