"""What each start of a run found: machines, versions, data; and what has changed since the last."""

import json
import os
import socket
import sys
import time
from collections.abc import Mapping
from importlib import metadata
from typing import Any

import jax
from etils import epath
from ml_collections import ConfigDict

from ssanet_jax.config import TrainPlan
from ssanet_jax.config.validation import changed_fields
from ssanet_jax.data import DatasetInfo
from ssanet_jax.errors import ConfigError
from ssanet_jax.training.atomic_io import replace_text
from ssanet_jax.training.metrics_file import read_metrics
from ssanet_jax.training.workdir import saved_config
from ssanet_jax.version import __version__

_PACKAGES = ('jax', 'jaxlib', 'flax', 'optax', 'orbax-checkpoint', 'tensorflow-datasets', 'numpy')


def check_same_run(
    config: ConfigDict, info: DatasetInfo, workdir: epath.Path, allow_config_change: bool
) -> list[str]:
    """Checks that the run in `workdir`, if it has checkpoints, is the one that is started now.

    Returns:
      What has changed without changing the run's meaning, or was allowed to, for people.

    Raises:
      ConfigError: listing what would change its meaning.
    """
    if not has_checkpoints(workdir):
        return []
    saved = saved_config(workdir)
    order = saved.pop('data_order', info.order)
    changed, notes = changed_fields(config, saved)
    if order != info.order:
        changed.append(
            f'its images came in the order of {order}, and now it would be that of {info.order}, '
            'by which some would come twice, and some not at all'
        )
    if before := read_starts(workdir)[-1:]:
        now = _found(0, info)
        notes += _changes(before[0], now)
        if before[0]['dataset'] != now['dataset']:
            changed.append(f'its data were {before[0]["dataset"]} and are {now["dataset"]}')
    if changed and not allow_config_change:
        raise ConfigError(
            f'The run in this workdir is another one: {"; ".join(changed)}. Choose a new workdir, '
            'or what it was; or go on all the same with --allow_config_change.'
        )
    return [f'Changed since the last start: {text}.' for text in changed + notes]


def has_checkpoints(workdir: epath.Path) -> bool:
    """Whether there are any, good or not."""
    folder = workdir / 'checkpoints'
    return folder.is_dir() and any(path.name.isdigit() for path in folder.iterdir())


def check_nothing_lost(workdir: epath.Path, plan: TrainPlan) -> list[str]:
    """Checks that a workdir without a checkpoint has lost none; returns notes for people.

    Raises:
      ConfigError: a start went on from a checkpoint, or metrics.jsonl goes on behind the second
        save, which waits for the first.
    """
    lines = read_metrics(workdir)
    if not lines:
        return []
    trained = max(line['step'] - (line['split'] != 'eval') for line in lines)  # and saved then
    saves = sum(plan.saves_at(step) for step in range(1, trained + 1))
    if saves > 1 or any(start.get('step') for start in read_starts(workdir)):
        raise ConfigError(
            f'{workdir} has metrics up to step {lines[-1]["step"]}, but no checkpoint. Put '
            'checkpoints/ back, or choose a new workdir.'
        )
    return [
        f'{workdir} has metrics of a run that ended before its first checkpoint; it begins anew.'
    ]


def record(config: ConfigDict, info: DatasetInfo, workdir: epath.Path, step: int) -> None:
    """Writes config.json, classes.json and a line of starts.jsonl; raises SaveError."""
    fields = {**json.loads(config.to_json_best_effort()), 'data_order': info.order}
    replace_text(workdir / 'config.json', json.dumps(fields, indent=2) + '\n')
    replace_text(workdir / 'classes.json', json.dumps(info.class_names, indent=0) + '\n')
    lines = [*read_starts(workdir), _found(step, info)]
    replace_text(workdir / 'starts.jsonl', ''.join(json.dumps(line) + '\n' for line in lines))


def read_starts(workdir: epath.Path) -> list[dict[str, Any]]:
    """The lines of starts.jsonl, one a start, up to one that is not whole."""
    path, starts = workdir / 'starts.jsonl', []
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            starts.append(dict(json.loads(line)))
        except (ValueError, TypeError):
            break
    return starts


def _found(step: int, info: DatasetInfo) -> dict[str, Any]:
    versions = {name: metadata.version(name) for name in _PACKAGES}
    return {
        'time': time.strftime('%Y-%m-%dT%H:%M:%S%z'),
        'host': socket.gethostname(),
        'pid': os.getpid(),
        'step': step,
        'hosts': jax.process_count(),
        'devices': jax.device_count(),
        'device_kind': jax.devices()[0].device_kind,
        'dataset': info.fingerprint,
        'versions': {'ssanet_jax': __version__, 'python': sys.version.split()[0], **versions},
    }


def _changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """How two starts differ in machines and versions."""
    flat_before, flat_now = (
        {name: start[name] for name in ('hosts', 'devices', 'device_kind')} | start['versions']
        for start in (before, now)
    )
    return [
        f'{name} was {flat_before.get(name)} and is {value}'
        for name, value in flat_now.items()
        if flat_before.get(name) != value
    ]
