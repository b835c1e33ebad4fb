"""study.json: what a study compares, with which code, on which machines."""

import hashlib
import importlib.util
import json
import os
import platform
import subprocess
import sys
from collections.abc import Callable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

from ssanet_jax import data, runtime
from ssanet_jax.atomic_write import atomic_write
from ssanet_jax.errors import ConfigError
from ssanet_jax.study import runner
from ssanet_jax.study.definition import Study, load_study
from ssanet_jax.study.folder import StudyFolder
from ssanet_jax.version import __version__

_FIXED = ('question', 'baseline', 'smallest_effect', 'corruptions', 'config', 'dataset')


def describe(path: Path, saved: Mapping[str, Any]) -> dict[str, Any]:
    """Describes a study; call it in a process that may use the devices.

    Args:
      path: of the study.
      saved: an earlier description, whose costs of unchanged variants are kept; or {}.

    Raises:
      ConfigError: the study or its dataset is invalid.
    """
    runtime.enable_compilation_cache()
    study = load_study(path)
    info = data.dataset_info(study.config)
    dataset = study.config.dataset
    return {
        'name': path.stem,
        'question': study.question,
        'baseline': study.baseline,
        'smallest_effect': study.smallest_effect,
        'seeds': list(study.seeds),
        'corruptions': list(study.corruptions),
        'variants': {
            name: _describe_variant(study, name, saved.get('variants', {}).get(name, {}))
            for name in study.variants
        },
        'config': json.loads(study.config.to_json()),
        'dataset': {
            'name': dataset.name,
            'train_split': dataset.train_split,
            'eval_split': dataset.eval_split,
            'num_train': info.num_train,
            'num_test': info.num_eval,
            'classes': list(info.class_names),
        },
        'code': code_version() | {'study': _digest_of_imports(path)},
        'machines': [_machine()],
    }


def _describe_variant(study: Study, name: str, saved: Mapping[str, Any]) -> dict[str, Any]:
    variant = study.variants[name]
    identity = {
        'overrides': json.loads(json.dumps(dict(variant.overrides))),
        'attention': variant.attention and _describe_block(variant.attention),
    }
    if identity.items() <= saved.items():
        return dict(saved)
    return identity | runner.cost(study, name)


def _describe_block(block: Callable[..., Any]) -> str:
    """Its name and, of a partial, its options: "SSABlock(combine='mean')"; raises ConfigError."""
    if not isinstance(block, partial):
        return _name(block)
    options = {key: value for key, value in block.keywords.items() if key != 'name'}
    listed = ', '.join(f'{key}={_name(value)}' for key, value in sorted(options.items()))
    return f'{_name(block.func)}({listed})'


def _name(value: Any) -> str:
    """The same text in every process."""
    text = getattr(value, '__name__', None) or repr(value)
    if text == '<lambda>' or ' at 0x' in text:
        raise ConfigError(
            f'{text} cannot be identified when the study is continued; use a named function.'
        )
    return text


def record(folder: StudyFolder, now: dict[str, Any], *, allow_code_change: bool) -> None:
    """Writes study.json, or checks it against `now` if runs have been made, and adds the machine.

    Seeds and variants may be added.

    Raises:
      ConfigError: the study in `folder` is another one, or was run with other code.
    """
    if folder.description.exists():
        before = folder.read_description()
        _check_same(folder, before, now, allow_code_change)
        now['machines'] = before['machines'] + [
            machine for machine in now['machines'] if machine not in before['machines']
        ]
    with atomic_write(folder.description) as temporary:
        temporary.write_text(json.dumps(now, indent=1) + '\n')


def _check_same(
    folder: StudyFolder, before: dict[str, Any], now: dict[str, Any], allow_code_change: bool
) -> None:
    changed = [name for name in _FIXED if before[name] != now[name]]
    changed += [
        f'variants.{name}'
        for name, variant in before['variants'].items()
        if variant != now['variants'].get(name)
    ]
    changed += ['seeds'] if not set(before['seeds']) <= set(now['seeds']) else []
    if changed:
        raise ConfigError(
            f'{folder} holds runs of a study with other {", ".join(changed)}; choose a new --out. '
            'Only variants and seeds may be added.'
        )
    if before['code'] != now['code'] and not allow_code_change:
        differences = ', '.join(
            f'{name} was {before["code"].get(name)} and is {value}'
            for name, value in now['code'].items()
            if before['code'].get(name) != value
        )
        raise ConfigError(
            f'{folder} holds runs of other code: {differences}. Check that commit out (git '
            'worktree add) and run python -m ssanet_jax.tools.study in its folder, or give '
            '--allow_code_change if the difference cannot change results.'
        )


def code_version() -> dict[str, str]:
    """Versions of this package and of the libraries that determine results, and the commit."""
    names = ('jax', 'jaxlib', 'flax', 'optax', 'numpy')
    versions = {name: metadata.version(name) for name in names}
    return {'ssanet_jax': __version__, 'commit': _commit(), **versions}


def _digest_of_imports(path: Path) -> str:
    """SHA-256 of the files next to a study that are imported; '' without any."""
    folder = path.parent.resolve()
    modules = (getattr(module, '__file__', None) for module in list(sys.modules.values()))
    files = sorted({Path(file).resolve() for file in modules if file})
    code = [file.read_bytes() for file in files if file.parent == folder]
    return hashlib.sha256(b''.join(code)).hexdigest()[:12] if code else ''


def _commit() -> str:
    """Commit of the checkout, with a digest of changes to tracked code; '' outside a checkout."""
    spec = importlib.util.find_spec('ssanet_jax')
    root = Path((spec and spec.origin) or '.').resolve().parents[1]
    if not (root / '.git').exists():  # git would find a repository around the environment
        return ''

    def git(*arguments: str) -> bytes:
        try:
            run = subprocess.run(['git', *arguments], cwd=root, capture_output=True)
        except OSError:
            return b''
        return run.stdout.strip()

    code = ('--', ':!studies/results', ':!docs')
    commit = git('rev-parse', '--short=12', 'HEAD').decode()
    plain = ('--no-ext-diff', '--no-textconv', '--no-color', '--src-prefix=a/', '--dst-prefix=b/')
    changes = git('diff', *plain, 'HEAD', *code)
    return f'{commit}-{hashlib.sha256(changes).hexdigest()[:8]}' if changes else commit


def _machine() -> dict[str, Any]:
    cpuinfo = Path('/proc/cpuinfo')
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    models = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    return {
        'cpu': models[0] if models else platform.processor(),
        'cores': os.cpu_count(),
        'device': jax.local_devices()[0].device_kind,
        'python': platform.python_version(),
    }
