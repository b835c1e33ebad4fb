"""Runs `ssanet preflight` for several slices, and keeps what it counts.

    pip install -e '.[train,preflight-tpu,preflight-cuda]'
    python benchmarks/preflights.py --out=benchmarks/results/preflight.json

The paper's recipe, and the one for large batches with gradients that cross devices in float32 and
in bfloat16. Runs in the file from the same versions are kept, so an interrupted run can be resumed.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from common import write

from ssanet_jax.targets import find_topology
from ssanet_jax.tools.compile_step import versions_of

RUNS = [
    (topology, *arguments)
    for small, large in (('v5e:4x4', 'v5e:16x16'), ('h100x8', 'h100x8'))
    for topology, *arguments in (
        (small, '--config=imagenet_ssa50'),
        (large, '--config=imagenet_ssa50_large_batch'),
        (large, '--config=imagenet_ssa50_large_batch', '--config.all_reduce_dtype=bfloat16'),
    )
]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True, help='JSON file to write or complete')
    out = parser.parse_args().out
    result: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    versions, runs = result.setdefault('versions', {}), result.setdefault('runs', {})
    for topology, *arguments in RUNS:
        command = ' '.join(['ssanet preflight', *arguments, f'--topology={topology}'])
        versions[topology] = versions_of(find_topology(topology)[0])
        if runs.get(command, {}).get('versions') != versions[topology]:
            runs[command] = preflight(f'--topology={topology}', *arguments)
            write(out, result)


def preflight(*arguments: str) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder, 'out.json')
        command = [sys.executable, '-m', 'ssanet_jax.tools.preflight', '--nosearch', f'--out={out}']
        subprocess.run([*command, *arguments], check=True)
        return json.loads(out.read_text())


if __name__ == '__main__':
    main()
