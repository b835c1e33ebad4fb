import nbformat
import pytest
from nbclient import NotebookClient

from tests.helpers import ROOT

NOTEBOOKS = sorted((ROOT / 'notebooks').glob('*.ipynb'))


@pytest.mark.parametrize('path', NOTEBOOKS, ids=lambda path: path.stem)
def test_outputs_are_stripped(path):
    for cell in nbformat.read(path, as_version=4).cells:
        assert not cell.get('outputs')
        assert not cell.get('execution_count')


@pytest.mark.filterwarnings('ignore::DeprecationWarning')  # of the kernel's own start
def test_quickstart_runs_on_the_digits(monkeypatch, tmp_path, data_dir):
    monkeypatch.setenv('TFDS_DATA_DIR', str(data_dir))
    monkeypatch.setenv('SSANET_DATASET', 'digits')
    monkeypatch.setenv('XLA_FLAGS', '')
    monkeypatch.setenv('TMPDIR', str(tmp_path))
    notebook = nbformat.read(ROOT / 'notebooks' / 'quickstart.ipynb', as_version=4)
    client = NotebookClient(
        notebook, timeout=600, resources={'metadata': {'path': str(ROOT / 'notebooks')}}
    )
    client.execute()
    outputs = [output for cell in notebook.cells for output in cell.get('outputs', [])]
    printed = ''.join(output.get('text', '') for output in outputs)
    assert 'images evaluated' in printed
    assert "'bias': (1,), 'scale': (1,)" in printed
    pictures = [o for o in outputs if 'image/png' in o.get('data', {})]
    assert len(pictures) == 2
