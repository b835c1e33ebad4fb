"""Measures the size on disk of new virtual environments with the packages of requirement files.

    python benchmarks/environment_size.py --out=benchmarks/results/environment_size.json \
        requirements.txt ff050c4:requirements.txt requirements-test.txt

ff050c4 is the last commit whose training environment had TensorFlow. pip installs each file as
`make setup` does, without bytecode; the size with it, which pip writes by default and
`make setup-test` too, is recorded beside.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

from common import ROOT, machine, write


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('files', nargs='+', metavar='[COMMIT:]FILE', help='in the repository')
    parser.add_argument('--out', type=Path, help='JSON file to write')
    arguments = parser.parse_args()
    environments = {}
    for file in arguments.files:
        environments[file] = measure(requirements(file))
        print(file, environments[file], flush=True)
    if arguments.out:
        write(arguments.out, {'machine': machine(), 'environments': environments})


def requirements(file: str) -> str:
    """The text of a file, or of one at a commit."""
    if ':' not in file:
        return (ROOT / file).read_text()
    return subprocess.check_output(['git', 'show', file], cwd=ROOT, text=True)


def measure(text: str) -> dict[str, int]:
    """Installs requirements; returns their number, and the bytes of the environment."""
    with tempfile.TemporaryDirectory() as folder:
        environment, file = Path(folder, 'venv'), Path(folder, 'requirements.txt')
        file.write_text(text)
        subprocess.run([sys.executable, '-m', 'venv', environment], check=True)
        python = environment / 'bin' / 'python'
        pip = [python, '-m', 'pip', '--quiet', '--disable-pip-version-check']
        subprocess.run([*pip, 'install', '--no-compile', '--requirement', file], check=True)
        listed = subprocess.check_output([*pip, 'freeze'], text=True)
        size = on_disk(environment)
        # Fails for files that are no Python of this version: templates and tests of packages.
        subprocess.run([python, '-m', 'compileall', '-q', environment], stdout=subprocess.DEVNULL)
        return {
            'packages': len(listed.splitlines()),
            'bytes': size,
            'bytes_with_bytecode': on_disk(environment),
        }


def on_disk(folder: Path) -> int:
    """The bytes that the files of a folder occupy, as `du` counts them."""
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob('*'))


if __name__ == '__main__':
    main()
