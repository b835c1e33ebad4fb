r"""Records the results on the digits that docs/gates.md, docs/saliency.md and docs/export.md quote.

    make train
    python benchmarks/trained_digits.py --workdir=runs/digits \
        --out=benchmarks/results/trained_digits.json

Runs ssanet gates with --ablation and ssanet export in each format, and scores the maps of all test
images against the ink in them, as docs/saliency.md does. Needs the extra `export`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '0')

import numpy as np
from common import ROOT, machine, write

import ssanet_jax
from ssanet_jax import data
from ssanet_jax.analysis.saliency_scores import localization, mean_scores
from ssanet_jax.trained.saliency import explain

FORMATS = ('stablehlo', 'saved_model', 'onnx', 'safetensors')
INK = 128  # half of the brightest gray


def tool(name: str, *arguments: str) -> str:
    """Runs a command; returns its output."""
    command = [sys.executable, '-m', f'ssanet_jax.tools.{name}', *arguments]
    return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout


def exports(workdir: Path) -> dict:
    """Exports in each format; returns the parity entries: bound, images, differences of logits."""
    with tempfile.TemporaryDirectory() as folder:
        for form in FORMATS:
            tool('export', f'--workdir={workdir}', f'--format={form}', f'--out={folder}/{form}')
        return {
            form: json.loads((Path(folder) / form / 'config.json').read_text())['parity']
            for form in FORMATS
        }


def ink(workdir: Path) -> dict:
    """The pointing game and the energy of each map, means over all test images."""
    trained = ssanet_jax.load(str(workdir))
    batches = list(data.eval_batches(trained.config, trained.config.dataset.eval_split))
    images = np.concatenate([batch['image'][batch['mask']] for batch in batches])
    scores = [localization(one.maps, one.image[..., 0] >= INK) for one in explain(trained, images)]
    return {name: score._asdict() for name, score in mean_scores(scores).items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--workdir', type=Path, required=True, help='of `make train`')
    parser.add_argument('--out', type=Path, required=True, help='JSON file to write')
    args = parser.parse_args()
    workdir = args.workdir.resolve()
    gates = json.loads(tool('gates', f'--workdir={workdir}', '--ablation', '--format=json'))
    result = {
        'machine': machine('jax', 'flax', 'tensorflow-cpu', 'onnxruntime'),
        'exports': exports(workdir),
        'ink': ink(workdir),
        'gates': gates,
    }
    write(args.out, result)


if __name__ == '__main__':
    main()
