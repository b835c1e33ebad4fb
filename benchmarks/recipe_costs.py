"""Compiles the training step of SSA-ResNet-50 with parts of recipes, and counts what they add.

    pip install libtpu 'jax[cuda13]'
    python benchmarks/recipe_costs.py --out=benchmarks/results/recipe_costs.json

Bytes read and written, temporaries and estimated cycles for one v5e with 128 images and one H100
with 256, at 224 pixels in bfloat16. Programs in the file are kept, so that an interrupted run
continues.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from common import write

from configs import imagenet_ssa50
from ssanet_jax.targets import find_topology
from ssanet_jax.tools.compile_step import Request, TooLarge, compile_apart, versions_of

IMAGES = {'v5e:1x1': 128, 'h100': 256}
PARTS: dict[str, dict[str, Any]] = {
    'plain': {},
    'mixing': {'mix.mixup_alpha': 0.1, 'mix.cutmix_alpha': 1.0},
    'ema': {'ema.horizon': 0.05},
    'mixing and ema': {'mix.mixup_alpha': 0.1, 'mix.cutmix_alpha': 1.0, 'ema.horizon': 0.05},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--out', type=Path, required=True)
    out = parser.parse_args().out
    result = json.loads(out.read_text()) if out.exists() else {'versions': {}, 'programs': {}}
    for topology in IMAGES:
        versions = versions_of(find_topology(topology)[0])
        if result['versions'].get(topology) != versions:
            result['versions'][topology], result['programs'][topology] = versions, {}
        done = result['programs'][topology]
        for part in PARTS:
            if part not in done:
                done[part] = count(topology, part)
                print(topology, part, done[part], flush=True)
                write(out, result)


def count(topology: str, part: str) -> dict[str, Any]:
    config = imagenet_ssa50.get_config()
    config.dtype = 'bfloat16'
    config.update_from_flattened_dict(PARTS[part])
    request = Request(config, topology, 'train', IMAGES[topology], 1000, 1_281_167)
    cost = compile_apart(request)
    if isinstance(cost, TooLarge):
        raise SystemExit(f'{part} does not fit {topology}: {cost}')
    return {key: getattr(cost, key) for key in ('cycles', 'bytes_accessed', 'temporaries')}


if __name__ == '__main__':
    main()
