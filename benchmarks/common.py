"""Helpers of the benchmarks: machine descriptions, JSON results, spreads, tables for docs."""

import json
import os
import platform
import re
import statistics
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
_libraries: list[Any] = []


def machine(*packages: str) -> dict[str, Any]:
    """Describes this machine, the versions of `packages` and the commit."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    environment = {
        'cpu': cpu[0] if cpu else platform.processor(),
        'cores': os.cpu_count(),
        'python': platform.python_version(),
    }
    environment |= {name: metadata.version(name) for name in packages}
    return environment | ({'commit': commit()} if commit() else {})


def commit(checkout: Path = ROOT) -> str:
    """The checked-out commit, with '-dirty' where code differs from it; '' outside a checkout."""
    name = _git(checkout, 'describe', '--always')
    code = ('--', ':!benchmarks/results', ':!docs')  # ignores the output of earlier benchmarks
    dirty = _git(checkout, 'status', '--porcelain', '--untracked-files=no', *code)
    return f'{name}-dirty' if dirty else name


def _git(checkout: Path, *arguments: str) -> str:
    run = subprocess.run(['git', *arguments], cwd=checkout, capture_output=True, text=True)
    return run.stdout.strip()


def register_torchvision_operators() -> None:
    """Lets torchvision be imported beside CPU builds of torch, which lack two of its operators."""
    import torch

    if torch.version.cuda is None:
        library = torch.library.Library('torchvision', 'DEF')
        _libraries.append(library)  # its operators are removed with it
        for name in ('nms', 'qnms'):
            library.define(f'{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')


def spread(values: list[float]) -> dict[str, float]:
    """The median, minimum and maximum."""
    return {'median': statistics.median(values), 'lowest': min(values), 'highest': max(values)}


def write(path: Path, result: dict[str, Any]) -> None:
    """Writes a result as JSON, creating its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + '\n')
    print(f'Written to {path}')


def markdown(header: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    header = list(header)
    lines = [header, ['---', *['---:'] * (len(header) - 1)], *map(list, rows)]
    return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def format_machine(machine: dict[str, Any]) -> str:
    return ', '.join(f'{name} {value}' for name, value in machine.items())


def rates(result: dict[str, float], digits: int = 2) -> str:
    """Formats a spread: the median, with the minimum and maximum in parentheses."""
    low, high = result['lowest'], result['highest']
    return f'{result["median"]:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})'


def fill(document: Path, tables: Mapping[str, str]) -> None:
    """Replaces each table between its markers, `<!-- table: NAME -->` and `<!-- end -->`."""
    text = document.read_text()
    for name, table in tables.items():
        block = f'<!-- table: {name} -->\n{table}\n<!-- end -->'
        pattern = re.compile(f'<!-- table: {re.escape(name)} -->.*?<!-- end -->', re.DOTALL)
        text, found = pattern.subn(lambda _, block=block: block, text)
        if not found:
            raise SystemExit(f'{document} has no <!-- table: {name} --> ... <!-- end -->.')
    document.write_text(text)
    print(f'Written to {document}: {", ".join(tables)}')
