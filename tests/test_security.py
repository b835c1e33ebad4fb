"""Files are never executed, and servers listen to this machine by default; see SECURITY.md."""

import ast
import json
import os
import pickle
import re
import struct
import sys
import zipfile
from types import SimpleNamespace

import numpy as np
import pytest

from ssanet_jax import weights
from tests.helpers import ROOT

SOURCES = [
    ROOT / 'main.py',
    *sorted(
        p
        for folder in ('ssanet_jax', 'configs', 'benchmarks')
        for p in ROOT.glob(f'{folder}/**/*.py')
    ),
]
TEXTS = [
    *SOURCES,
    *(ROOT / name for name in ('README.md', 'Makefile', 'CONTRIBUTING.md')),
    *sorted(
        p
        for folder in ('docs', 'launch', 'notebooks')
        for p in ROOT.glob(f'{folder}/*')
        if p.is_file() and p.suffix not in ('.jpg', '.png')
    ),
]

MODULES = {
    'pickle', '_pickle', 'cPickle', 'cloudpickle', 'dill', 'jsonpickle', 'joblib', 'marshal',
    'shelve', 'pty',
}  # fmt: skip
CALLS = {
    'eval', 'exec', 'compile', '__import__', 'os.system', 'os.popen', 'subprocess.getoutput',
    'subprocess.getstatusoutput', 'yaml.load', 'yaml.load_all', 'yaml.full_load',
    'yaml.unsafe_load', 'pandas.read_pickle', 'torch.hub.load', 'torch.jit.load',
    'jax.profiler.start_server',
}  # fmt: skip
METHODS = {'extractall', 'unpack_archive'}
EVERYWHERE = re.compile(r'--bind_all|--host[ =]|\b0\.0\.0\.0\b|\[::\]')


def names_of(tree):
    """Resolves the names that a file imports: {'np': 'numpy', 'load': 'torch.load', ...}."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {a.asname: a.name for a in node.names if a.asname}
        elif isinstance(node, ast.ImportFrom):
            names |= {a.asname or a.name: f'{node.module}.{a.name}' for a in node.names}
    return names


def dotted(node, names):
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f'{dotted(node.value, names)}.{node.attr}'
    return ''


def is_constant(node, value):
    return isinstance(node, ast.Constant) and node.value is value


def risks(code):
    """The imports and calls in `code` that execute input, start a shell, or open a server."""
    tree = ast.parse(code)
    names = names_of(tree)
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.partition('.')[0] in MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if (node.module or '').partition('.')[0] in MODULES else []
        elif isinstance(node, ast.Call):
            name = dotted(node.func, names)
            given = {k.arg: k.value for k in node.keywords}
            safe = is_constant(given.get('weights_only'), True)
            if name in CALLS or name.rpartition('.')[2] in METHODS:
                found.append(name)
            if name == 'torch.load' and not safe:
                found.append(name)
            for risk in ('shell', 'allow_pickle'):
                if risk in given and not is_constant(given[risk], False):
                    found.append(f'{name}({risk}=)')
    return found


def test_no_source_can_execute_what_it_reads():
    assert len(SOURCES) > 100
    found = {str(path): risks(path.read_text()) for path in SOURCES}
    assert {path: calls for path, calls in found.items() if calls} == {}


@pytest.mark.parametrize(
    'code',
    [
        'import pickle', 'from pickle import loads', 'import cloudpickle as safe', 'import marshal',
        'import shelve', 'def f():\n    import dill', 'import joblib.numpy_pickle', 'eval(text)',
        'exec(text)', 'import os\nos.system(text)', 'from os import system as run\nrun(text)',
        'import subprocess\nsubprocess.run(text, shell=True)', 'run(text, shell=flag)',
        'import yaml\nyaml.load(file)', 'import yaml as y\ny.unsafe_load(file)',
        'import numpy as np\nnp.load(file, allow_pickle=True)', 'import torch\ntorch.load(file)',
        'from torch import load\nload(file)', 'import torch\ntorch.load(file, weights_only=False)',
        'import torch\ntorch.load(file, weights_only=choice)', 'archive.extractall(folder)',
        'import jax\njax.profiler.start_server(9999)',
    ],
)  # fmt: skip
def test_risky_code_is_detected(code):
    assert len(risks(code)) == 1


@pytest.mark.parametrize(
    'code',
    [
        'model.eval()', 'import numpy as np\nnp.load(file)', 'import re\nre.compile(text)',
        'import subprocess\nsubprocess.run([text], shell=False)', 'import yaml\nyaml.safe_load(f)',
        'import torch\ntorch.load(file, weights_only=True)', 'json.load(file)',
    ],
)  # fmt: skip
def test_safe_code_is_accepted(code):
    assert risks(code) == []


def test_no_page_or_program_opens_a_server_to_the_network():
    found = {path.name: EVERYWHERE.findall(path.read_text()) for path in TEXTS}
    warned_of = {
        'demo.py': ['--host=', '0.0.0.0', '--host='],
        'trained.md': ['--host=', '0.0.0.0'],
    }
    assert {name: words for name, words in found.items() if words} == warned_of
    for text in ('tensorboard --logdir runs --bind_all', "host='0.0.0.0'", '--host 10.0.0.1'):
        assert EVERYWHERE.search(text)


class Payload:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f'touch {self.path}',)


@pytest.fixture
def ran(tmp_path):
    """The file that a payload creates when it is executed, as this fixture verifies."""
    path = tmp_path / 'ran'
    pickle.loads(pickle.dumps(Payload(path)))
    assert path.exists()
    path.unlink()
    return path


@pytest.mark.parametrize('form', ['plain', 'zip', 'legacy'])
def test_a_payload_in_torch_weights_is_not_executed(tmp_path, ran, form):
    torch = pytest.importorskip('torch')
    path = tmp_path / 'weights.pth'
    if form == 'plain':
        path.write_bytes(pickle.dumps({'fc.weight': Payload(ran)}, protocol=2))
    else:
        content = {'state_dict': {'fc.weight': Payload(ran)}}
        torch.save(content, path, _use_new_zipfile_serialization=form == 'zip')
    with pytest.raises(ValueError, match='cannot be read as plain weights') as raised:
        weights.load(path)
    assert '\n' not in str(raised.value)
    assert not ran.exists()


@pytest.mark.parametrize('compressed', [False, True])
def test_compressed_torch_weights_are_rejected(tmp_path, compressed):
    torch = pytest.importorskip('torch')
    path, bomb = tmp_path / 'weights.pth', tmp_path / 'bomb.pth'
    torch.save({'fc.weight': torch.zeros(1000, 1000)}, path)
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(bomb, 'w', kind) as other:
        for entry in archive.infolist():
            other.writestr(entry.filename, archive.read(entry))
    assert weights.load(path)['fc.weight'].shape == (1000, 1000)
    if not compressed:
        assert weights.load(bomb)['fc.weight'].shape == (1000, 1000)
        return
    with pytest.raises(ValueError, match=r'it unpacks to 4,000,\d+ bytes and has [45],\d+\)'):
        weights.load(bomb)


def zipped(path, number=3):
    """Compressed zeros, as a stand-in for weights."""
    with zipfile.ZipFile(path, 'w', zipfile.ZIP_DEFLATED) as archive:
        for i in range(number):
            archive.writestr(f'archive/data/{i}', bytes(10**6))
    return path


def stand_in(monkeypatch, version):
    def load(path, **kwargs):
        raise AssertionError('It was read.')

    torch = SimpleNamespace(load=load, Tensor=np.ndarray, __version__=version)
    monkeypatch.setitem(sys.modules, 'torch', torch)


def test_a_zip_bomb_is_rejected_before_torch_sees_it(tmp_path, monkeypatch):
    stand_in(monkeypatch, '2.13.0+cpu')
    with pytest.raises(ValueError, match='it unpacks to 3,000,000 bytes'):
        weights.load(zipped(tmp_path / 'weights.pth'))


@pytest.mark.parametrize('version', ['1.13.1', '2.5.1+cu121', '2.9.1'])
def test_a_vulnerable_torch_is_rejected(tmp_path, monkeypatch, version):
    stand_in(monkeypatch, version)
    (tmp_path / 'weights.pth').touch()
    with pytest.raises(
        ImportError, match=rf'needs torch 2\.10 or newer, since {re.escape(version)}'
    ):
        weights.load(tmp_path / 'weights.pth')


def safetensors(header, data=bytes(16), *, length=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack('<Q', len(text) if length is None else length) + text + data


def tensor(begin, end, shape=(4,), dtype='F32'):
    return {'dtype': dtype, 'shape': shape, 'data_offsets': [begin, end]}


SAFETENSORS = {
    'length of 2**63': safetensors({'a': tensor(0, 16)}, length=2**63),
    'length of 4 GB': safetensors({'a': tensor(0, 16)}, length=2**32),
    'length beyond the file': safetensors({'a': tensor(0, 16)}, length=200),
    'overlap': safetensors({'a': tensor(0, 16), 'b': tensor(0, 16)}),
    'partial overlap': safetensors({'a': tensor(0, 12, (3,)), 'b': tensor(8, 16, (2,))}),
    'hole': safetensors({'a': tensor(8, 16, (2,))}),
    'beyond the end': safetensors({'a': tensor(0, 2**40, (2**38,))}),
    'backwards': safetensors({'a': tensor(16, 0)}),
    'negative': safetensors({'a': tensor(-16, 0)}),
    'shape of another size': safetensors({'a': tensor(0, 16, (2**20, 2**20))}),
    'shape that overflows': safetensors({'a': tensor(0, 16, (2**33, 2**33))}),
    'unknown dtype': safetensors({'a': tensor(0, 16, dtype='OBJECT')}),
    'more than it says': safetensors({'a': tensor(0, 16)}, bytes(99)),
    'no JSON': safetensors(b'cos\nsystem\n' + b' ' * 30),
    'deep JSON': safetensors(b'{"a":' * 50_000),
    'pickle': pickle.dumps({'a': 1}),
}


@pytest.mark.parametrize('kind', SAFETENSORS)
def test_hostile_safetensors_are_one_line_errors(tmp_path, kind):
    path = tmp_path / 'weights.safetensors'
    path.write_bytes(safetensors({'a': tensor(0, 16)}))
    assert weights.load(path)['a'].shape == (4,)
    path.write_bytes(SAFETENSORS[kind])
    reason = 'weights.safetensors' if kind == 'pickle' else 'is not a complete safetensors file'
    with pytest.raises((ValueError, ImportError), match=reason) as raised:
        weights.load(path)
    assert '\n' not in str(raised.value)
    assert len(str(raised.value)) < 500
