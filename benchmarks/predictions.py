r"""Compares tools.predict on image files with evaluation on the dataset they come from.

    python benchmarks/predictions.py configs/digits_ssa20.py=runs/digits \
        configs/fashion_mnist_ssa20.py=runs/fashion_mnist --out=benchmarks/results/predictions.json

Every image of the run's evaluation split is written to a PNG file of its original size. The
predictions of the command are scored here with NumPy and compared with `main.py --mode=eval`: top-1
and top-5 must be equal, and the mean loss equal up to rounding.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from common import ROOT, machine, write
from PIL import Image

from ssanet_jax.config import with_defaults
from ssanet_jax.data import HostShard
from ssanet_jax.data.builders import open_source
from ssanet_jax.data.decoding.images import decode_image
from ssanet_jax.training.storage.workdir import Workdir


def write_images(dataset, folder: Path) -> np.ndarray:
    """Writes the images of the evaluation split as 00000.png, ...; returns their labels."""
    labels = []
    for batch in open_source(dataset, dataset.eval_split).evaluation(HostShard(0, 1)):
        for number, file in zip(batch.number.tolist(), batch.files, strict=True):
            Image.fromarray(decode_image(file, dataset)).save(folder / f'{number:05}.png')
        labels.append(batch.label)
    return np.concatenate(labels)


def predicted(workdir: Path, folder: Path, classes: list[str]) -> np.ndarray:
    """Probabilities [N, K] from the command, in the order of the files."""
    command = [
        sys.executable, '-m', 'ssanet_jax.tools.predict', f'--workdir={workdir}',
        '--format=jsonl', f'--top={len(classes)}', '--batch_size=250', str(folder),
    ]  # fmt: skip
    text = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    places = {name: place for place, name in enumerate(classes)}
    rows = []
    for line in text.splitlines():
        row = np.zeros(len(classes))
        for guess in json.loads(line)['top']:
            row[places[guess['class']]] = guess['probability']
        rows.append(row)
    return np.array(rows)


def evaluated(workdir: Path, config: str) -> dict:
    """Metrics from main.py --mode=eval."""
    flags = ['--mode=eval', f'--config={config}', f'--workdir={workdir}']
    subprocess.run([sys.executable, 'main.py', *flags], cwd=ROOT, check=True)
    return json.loads((Workdir(workdir).evaluation).read_text())


def compare(config_file: str, workdir: Path) -> dict:
    """Scores the command and evaluation, and checks that they agree."""
    config, classes = with_defaults(Workdir(workdir).read_config()), Workdir(workdir).read_classes()
    with tempfile.TemporaryDirectory() as folder:
        labels = write_images(config.dataset, Path(folder))
        begin = time.perf_counter()
        probabilities = predicted(workdir, Path(folder), list(classes))
        seconds = time.perf_counter() - begin
    order = np.argsort(-probabilities, axis=1, kind='stable')
    rank = np.argmax(order == labels[:, None], axis=1)
    loss = float(-np.log(probabilities[np.arange(len(labels)), labels]).mean())
    expected = evaluated(workdir, config_file)
    count = expected['num_examples']
    by_command = {
        'images': len(labels),
        'top1_correct': int((rank < 1).sum()),
        'top5_correct': int((rank < 5).sum()),
    }
    by_evaluation = {
        'images': count,
        'top1_correct': round(expected['top1'] * count / 100),
        'top5_correct': round(expected['top5'] * count / 100),
    }
    close = abs(loss - expected['loss']) <= 1e-5 * max(1.0, expected['loss'])
    return {
        'config': config_file,
        'step': expected['step'],
        'predicted': by_command | {'loss': loss},
        'evaluated': by_evaluation | {'loss': expected['loss']},
        'equal': by_command == by_evaluation and close,
        'seconds_of_the_command': round(seconds, 1),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('runs', nargs='+', help='CONFIG=WORKDIR of runs of main.py')
    parser.add_argument('--out', type=Path, required=True, help='JSON file to write')
    args = parser.parse_args()

    results = []
    for run in args.runs:
        config_file, _, workdir = run.partition('=')
        results.append(compare(config_file, Path(workdir)))
        print(json.dumps(results[-1]), flush=True)
    write(args.out, {'machine': machine('jax', 'flax', 'simplejpeg'), 'runs': results})
    sys.exit(0 if all(result['equal'] for result in results) else 1)


if __name__ == '__main__':
    main()
