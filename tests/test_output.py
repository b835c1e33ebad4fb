"""Standard output and error that cannot be written, and names that hold control characters."""

import io
import os
import pty
import subprocess
import sys

import pytest

from ssanet_jax import output
from ssanet_jax.output import lossy, lossy_output, printable

# The module alone, since importing the package takes seconds.
LOAD = f"""
import os, sys
from importlib import util
spec = util.spec_from_file_location('output', {output.__file__!r})
output = util.module_from_spec(spec)
spec.loader.exec_module(output)
output.open_standard_streams()
"""

# A stand-in for a run: it prints, and ends with 3.
RUN = f"""{LOAD}
with output.lossy_output():
    for line in range(5):
        print('line', line)
    print('done', file=sys.stderr)
sys.exit(3)
"""


def run(code, redirect, folder):
    (folder / 'code.py').write_text(code)
    command = f'set -o pipefail; {sys.executable} {folder}/code.py {redirect}'
    return subprocess.run(['bash', '-c', command], capture_output=True, text=True)


def writer_of(fd):
    return io.TextIOWrapper(io.FileIO(fd, 'w'), encoding='utf-8')


@pytest.mark.parametrize(
    ('redirect', 'error'),
    [
        ('>/dev/full', 'Standard output cannot be written: [Errno 28] No space left on device'),
        ('| true', 'Standard output cannot be written: [Errno 32] Broken pipe'),
        ('>&-', ''),
        ('2>/dev/full', ''),
        ('>&- 2>&-', ''),
        ('>/dev/full 2>/dev/full', ''),
    ],
)
def test_a_program_goes_on_to_its_exit_code_without_output(redirect, error, tmp_path):
    done = run(RUN, redirect, tmp_path)
    assert done.returncode == 3, done.stderr
    if redirect in ('>/dev/full', '| true'):
        assert done.stderr.splitlines() == [f'{error}. The run continues.', 'done']


def test_the_files_of_a_program_do_not_become_its_closed_streams(tmp_path):
    write = f'file = open({str(tmp_path / "file")!r}, "w"); os.write(2, b"by a library")'
    assert run(f'{LOAD}\n{write}', '<&- >&- 2>&-', tmp_path).returncode == 0
    assert (tmp_path / 'file').read_text() == ''


def test_a_reader_that_does_not_read_delays_once_and_is_reported_once(monkeypatch):
    monkeypatch.setattr(output, '_PATIENCE_S', 0.01)
    reader, fd = os.pipe()
    reasons = []
    monkeypatch.setattr(output._LossyStream, '_report', lambda self, e: reasons.append(str(e)))
    with writer_of(fd) as file:
        stream = lossy(file)
        for _ in range(100):
            assert stream.write('x' * 1000 + '\n') == 1001  # a pipe holds 65,536
        assert set(reasons) == {'its reader is not reading'}
        os.read(reader, 1 << 20)
        stream.write('read again\n')
        assert os.read(reader, 100) == b'read again\n'
    os.close(reader)


def test_a_terminal_that_has_gone_loses_text_only():
    controller, terminal = pty.openpty()
    with writer_of(terminal) as file:
        stream = lossy(file)
        assert stream.isatty()
        os.close(controller)
        assert stream.write('nobody sees it\n') == 15


def test_text_that_the_encoding_lacks_is_escaped(tmp_path):
    with io.TextIOWrapper(io.FileIO(tmp_path / 'log', 'w'), encoding='ascii') as file:
        lossy(file).write('runs/\u65e5 \udcff\n')
    assert (tmp_path / 'log').read_text() == 'runs/\\u65e5 \\udcff\n'


def test_streams_that_are_no_files_remain(capsys, monkeypatch):
    with lossy_output():
        print('captured')
    assert capsys.readouterr().out == 'captured\n'
    stream = io.StringIO()
    assert lossy(stream) is stream
    monkeypatch.setattr(sys, 'stdout', None)
    with lossy_output():
        print('to nowhere')
    assert sys.stdout is None


@pytest.mark.parametrize(
    ('name', 'text'),
    [
        ('\x1b]0;title\x07.png', r'\x1b]0;title\x07.png'),
        ('two\nlines\r\t', r'two\nlines\r\t'),
        ('c1\x9b31m', r'c1\x9b31m'),
        (os.fsdecode(b'caf\xe9'), r'caf\xe9'),
        ('gpj.\u202eexe', r'gpj.\u202eexe'),
        ('日本 é 👩\u200d💻', '日本 é 👩\u200d💻'),
        ('[red]50 % {x}', '[red]50 % {x}'),
    ],
)
def test_names_are_printed_without_their_control_characters(name, text):
    assert printable(name) == text
