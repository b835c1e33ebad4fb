r"""Times tools.predict from its start to its answer for one image, and that of another checkout.

    git worktree add /tmp/before COMMIT
    python benchmarks/start_up.py --workdir=runs/digits --image=seven.png --before=/tmp/before \
        --out=benchmarks/results/start_up.json

Both take turns, in processes of this interpreter. Seconds are by the clock and of processors.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from pathlib import Path

from common import ROOT, commit, machine, spread, write


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--workdir', type=Path, required=True, help='a run of main.py')
    parser.add_argument('--image', type=Path, required=True)
    parser.add_argument('--before', type=Path, help='another checkout')
    parser.add_argument('--rounds', type=int, default=10)
    parser.add_argument('--out', type=Path, help='JSON file to write')
    arguments = parser.parse_args()
    checkouts = {'now': ROOT} | ({'before': arguments.before} if arguments.before else {})
    files = arguments.workdir.absolute(), arguments.image.absolute()
    seconds: dict[str, dict[str, list[float]]] = {
        name: {'clock': [], 'processors': []} for name in checkouts
    }
    for checkout in checkouts.values():  # warms caches of files and of compiled programs
        predict(checkout, *files)
    for number in range(arguments.rounds):
        for name, checkout in checkouts.items():
            clock, processors = predict(checkout, *files)
            seconds[name]['clock'].append(clock)
            seconds[name]['processors'].append(processors)
            print(f'round {number + 1}: {name} {clock:.2f} s, {processors:.2f} s', flush=True)
    result = {
        'machine': machine('jax', 'flax', 'tensorflow-datasets'),
        'load': os.getloadavg()[1],
        'seconds': {
            name: {kind: spread(values) for kind, values in kinds.items()}
            for name, kinds in seconds.items()
        },
        'rounds': seconds,
    }
    if arguments.before:
        result['before_commit'] = commit(arguments.before)
    print(result['seconds'])
    if arguments.out:
        write(arguments.out, result)


def predict(checkout: Path, workdir: Path, image: Path) -> tuple[float, float]:
    """Runs the command; returns seconds by the clock and of processors."""
    command = [sys.executable, '-m', 'ssanet_jax.tools.predict', f'--workdir={workdir}', str(image)]
    environment = os.environ | {'PYTHONPATH': str(checkout)}
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run(command, cwd=checkout, env=environment, check=True, capture_output=True)
    clock = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return clock, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == '__main__':
    main()
