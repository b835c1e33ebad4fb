"""Compares the results of runs; reads checkpoints with Orbax and all other files as JSON."""

import hashlib
import json
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from processes import newest_step, read, unfinished_saves

jax.config.update('jax_platforms', 'cpu')  # as in the runs


def array_hashes(checkpoint: Path) -> dict[str, str]:
    """SHA-256 of each array of a checkpoint, with its type and shape."""
    verbosity = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    checkpointer = ocp.PyTreeCheckpointer()
    metadata = checkpointer.metadata(checkpoint).item_metadata.tree
    as_numpy = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), metadata)
    tree = checkpointer.restore(checkpoint, restore_args=as_numpy)
    logging.set_verbosity(verbosity)
    return {
        jax.tree_util.keystr(path): (
            f'{array.dtype}{array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}'
        )
        for path, array in jax.tree_util.tree_leaves_with_path(tree)
    }


def reproducible(value: Any) -> Any:
    """`value` of a JSON file without its timings."""
    if isinstance(value, list):
        return [reproducible(item) for item in value]
    if isinstance(value, dict):
        return {
            name: reproducible(item)
            for name, item in value.items()
            if not name.endswith(('_seconds', '_per_second'))
        }
    return value


def outcome(workdir: Path) -> dict[str, Any]:
    """The reproducible results of a finished run."""
    step = newest_step(workdir)
    text = read(workdir / 'metrics.jsonl')
    return {
        'step': step,
        'arrays': array_hashes(workdir / 'checkpoints' / str(step) / 'default'),
        'metrics': [reproducible(json.loads(line)) for line in text.splitlines()],
        'summary': reproducible(json.loads(read(workdir / 'summary.json'))),
    }


def differences(workdir: Path, reference: dict[str, Any]) -> list[str]:
    """Describes how the results of a run differ from `reference`; [] if they do not."""
    try:
        now = outcome(workdir)
    except Exception as error:  # any failure to read the result is a finding
        return [f'its results cannot be read: {error!r}']
    problems = []
    if now['step'] != reference['step']:
        problems.append(f'the last step is {now["step"]}, not {reference["step"]}')
    arrays, expected = now['arrays'], reference['arrays']
    if different := sorted(k for k in arrays | expected if arrays.get(k) != expected.get(k)):
        problems.append(f'{len(different)} of {len(expected)} arrays differ, first {different[0]}')
    if not read(workdir / 'metrics.jsonl').endswith('\n'):
        problems.append('metrics.jsonl ends in a torn line')
    if now['metrics'] != reference['metrics']:
        pairs = zip(now['metrics'], reference['metrics'], strict=False)
        index = next((i for i, (a, b) in enumerate(pairs) if a != b), 'none of those in both')
        problems.append(
            f'metrics.jsonl has {len(now["metrics"])} lines instead of '
            f'{len(reference["metrics"])}, the first that differs is {index}'
        )
    if now['summary'] != reference['summary']:
        problems.append('summary.json differs')
    return problems + leftovers(workdir)


def leftovers(workdir: Path) -> list[str]:
    """Describes incomplete files in the workdir."""
    problems = [f'{path.name} was left' for path in unfinished_saves(workdir)]
    problems += [f'{path.name} was left' for path in workdir.glob('*.tmp')]
    for line in read(workdir / 'starts.jsonl').splitlines():
        try:
            json.loads(line)
        except ValueError:
            problems.append(f'starts.jsonl has the line {line[:80]!r}')
    return problems
