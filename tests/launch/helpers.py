"""Parsed launch files and docs/launch.md, and stand-ins for clusters and long runs."""

import os
import re
import stat
import subprocess
import sys
import time
from contextlib import contextmanager

from tests.helpers import ROOT

LAUNCH = ROOT / 'launch'
PAGE = ROOT / 'docs/launch.md'

# The page's table: exit code -> what until_done.sh, a SLURM job and a Kubernetes job do with it.
TABLE = {
    int(code): tuple(does)
    for codes, *does in re.findall(
        r'^\| ([\d, ]+) \| .+? \| (stops|restarts).*? \| (.+?) \| (.+?) \|$',
        PAGE.read_text(),
        re.MULTILINE,
    )
    for code in codes.split(', ')
}
ENDS = sorted(code for code, (does, *_) in TABLE.items() if does == 'stops')
RUNS_AGAIN = sorted(set(TABLE) - set(ENDS))


def program(path, text):
    """Writes an executable bash script."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/usr/bin/env bash\n{text}\n')
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


# Before a command: it is to obey signals also where the tests ignore some, as under nohup.
OBEY = (
    sys.executable,
    '-c',
    'import os, signal, sys; '
    'names = ("SIGTERM", "SIGINT", "SIGHUP"); '
    '[signal.signal(getattr(signal, name), signal.SIG_DFL) for name in names]; '
    'os.execvp(sys.argv[1], sys.argv[1:])',
)


@contextmanager
def started(*command, **options):
    with subprocess.Popen([*OBEY, *command], **options) as process:
        try:
            yield process
        finally:
            process.kill()


def fails_with(tmp_path, *codes):
    """A command that exits with these codes in turn, then with 0; see `runs`."""
    cases = '\n'.join(f'{i}) {how_to_end(code)} ;;' for i, code in enumerate(codes))
    count = f'$(($(wc -l <{tmp_path}/runs) - 1))'
    return program(
        tmp_path / 'command', f'echo "$@" >>{tmp_path}/runs\ncase {count} in\n{cases}\nesac'
    )


def how_to_end(code):
    return f'kill -{code - 128} $$' if code in (130, 137, 143) else f'exit {code}'


def saves(tmp_path):
    """Simulates a run that saves for a moment after a signal; logs both to `runs`."""
    return f"""
trap 'echo signal >>{tmp_path}/runs' TERM INT
echo started >>{tmp_path}/runs
while ! grep -q signal {tmp_path}/runs; do sleep 0.05; done
for _ in {{1..6}}; do sleep 0.05; done
exit 75"""


def runs(tmp_path):
    """The arguments of each call of `fails_with`, or the log of `saves`."""
    return (tmp_path / 'runs').read_text().splitlines()


def wait_for(condition):
    for _ in range(200):
        if condition():
            return
        time.sleep(0.05)
    raise TimeoutError


def run(*command, path=None, **environment):
    """Runs a command at the top of the checkout, with `path` first in PATH."""
    before = f'{path}{os.pathsep}' if path else ''
    return subprocess.run(
        [*OBEY, *command],
        cwd=ROOT,
        env={**os.environ, 'PATH': before + os.environ['PATH'], **environment},
        capture_output=True,
        text=True,
        timeout=60,
    )
