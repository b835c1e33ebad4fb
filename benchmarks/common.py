"""What the benchmarks share: the machine in words, results as JSON, times with their spread."""

import json
import os
import platform
import statistics
import subprocess
from importlib import metadata
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def machine(*packages: str) -> dict[str, Any]:
    """This machine, the versions of `packages`, and the commit."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    cpu = [line.partition(':')[2].strip() for line in lines if line.startswith('model name')]
    described = {
        'cpu': cpu[0] if cpu else platform.processor(),
        'cores': os.cpu_count(),
        'python': platform.python_version(),
    }
    described |= {name: metadata.version(name) for name in packages}
    commit = subprocess.run(
        ['git', 'describe', '--always', '--dirty'], cwd=ROOT, capture_output=True, text=True
    )
    return described | ({'commit': commit.stdout.strip()} if commit.returncode == 0 else {})


def spread(values: list[float]) -> dict[str, float]:
    """Median, lowest and highest."""
    return {'median': statistics.median(values), 'lowest': min(values), 'highest': max(values)}


def write(path: Path, result: dict[str, Any]) -> None:
    """Writes a result, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + '\n')
    print(f'Written to {path}')
