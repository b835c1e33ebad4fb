"""tools.publish: from a run to the Hub, and back in another process."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from PIL import Image

import ssanet_jax
from ssanet_jax.data import file_batches
from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import demo, predict, publish, saliency
from ssanet_jax.trained.prediction import Predictor
from tests.helpers import ROOT, run_tool
from tests.hub_server import TOKEN

_write_text = Path.write_text


def test_another_process_computes_the_logits_of_the_run_bit_for_bit(trained, out, images, tmp_path):
    code = (
        'import jax, numpy as np, ssanet_jax\n'
        f'images = np.load("{tmp_path}/images.npy")\n'
        f'trained = ssanet_jax.load("{out}")\n'
        'apply = jax.jit(lambda v, x: trained.model.apply(v, trained.preprocess(x), train=False))\n'
        f'np.save("{tmp_path}/logits.npy", apply(trained.variables, images))\n'
    )
    np.save(tmp_path / 'images.npy', images)
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    subprocess.run([sys.executable, '-c', code], env=environment, check=True, timeout=200)
    apply = jax.jit(lambda v, x: trained.model.apply(v, trained.preprocess(x), train=False))
    expected = np.asarray(apply(trained.variables, images))
    np.testing.assert_array_equal(np.load(tmp_path / 'logits.npy'), expected)


def test_a_folder_appears_with_its_card_or_not_at_all(digits_run, tmp_path, monkeypatch):
    def write_text(path, text, encoding=None, **options):
        if path.name == 'README.md':
            assert encoding == 'utf-8'
            raise OSError(28, 'No space left on device')
        return _write_text(path, text, encoding, **options)

    monkeypatch.setattr(Path, 'write_text', write_text)
    with pytest.raises(ConfigError, match='No space left'):
        run_tool(publish, f'--workdir={digits_run}', f'--out={tmp_path}/out')
    assert list(tmp_path.iterdir()) == []


def test_a_public_repository_is_not_taken_for_a_private_one(hub, out, monkeypatch):
    monkeypatch.setenv('HF_TOKEN', TOKEN)
    hub.add('me/digits', {})
    with pytest.raises(ConfigError, match='me/digits exists and is public'):
        run_tool(publish, f'--out={out}', '--repo=me/digits', '--upload', '--private')
    assert hub.repos['me/digits']['main'] == {}


# Of huggingface_hub's own upload.
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_a_folder_is_uploaded_and_loads_from_the_hub(hub, out, trained, monkeypatch, capsys):
    upload = [f'--out={out}', '--repo=me/digits', '--upload']
    with pytest.raises(ConfigError, match='hf auth login') as raised:
        run_tool(publish, *upload)
    assert '\n' not in str(raised.value)

    monkeypatch.setenv('HF_TOKEN', TOKEN)
    for _ in range(2):  # the second into the repository of the first
        run_tool(publish, *upload, '--private')
        assert capsys.readouterr().out.startswith(f'{hub.address}/me/digits/commit/')
    assert hub.repos['me/digits']['main'] == {p.name: p.read_bytes() for p in out.iterdir()}
    assert 'me/digits' in hub.private
    assert ssanet_jax.load('hf://me/digits').classes == trained.classes


def test_commands_take_a_published_folder(out, digits_run, images, tmp_path, capfd):
    Image.fromarray(images[0]).save(tmp_path / 'a.png')
    printed = []
    for source in (f'--workdir={digits_run}', f'--model={out}'):
        with pytest.raises(SystemExit, match='0'):
            run_tool(predict, source, '--format=jsonl', tmp_path / 'a.png')
        printed.append(capfd.readouterr().out)
    assert printed[0] == printed[1]
    with pytest.raises(SystemExit, match='0'):
        run_tool(saliency, f'--model={out}', f'--out={tmp_path}/maps', tmp_path / 'a.png')
    assert f'{out}.' in (tmp_path / 'maps/index.html').read_text()


def test_the_demo_takes_a_published_folder(out, trained, images, tmp_path, monkeypatch, capsys):
    served = []

    def serve(model, **_):  # Gradio leaves sockets open
        served.append(model)
        return SimpleNamespace(close=lambda verbose: None)

    monkeypatch.setattr(demo, 'serve', serve)
    monkeypatch.setattr(demo, '_wait_for_signal', lambda: None)
    run_tool(demo, f'--model={out}')
    assert f'shows {out}.' in capsys.readouterr().out
    Image.fromarray(images[0]).save(tmp_path / 'a.png')
    dataset = demo.limit_pixels(served[0], 10**6)
    (batch,) = file_batches([tmp_path / 'a.png'], dataset, 1)
    assert Predictor(served[0]).top(batch.image) == Predictor(trained).top(batch.image)
    pictures, _ = demo._pictures(served[0], batch.image)
    assert [caption for _, caption in pictures][::4] == ['input', 'mean']


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['--out=a'], 'Give --workdir'),
        (['--out=a', '--workdir=b', '--private'], '--private has no effect'),
        (['--out=a', '--upload', '--repo=a/b', '--license=mit'], '--license has no effect'),
        (['--out=/', '--workdir=b'], 'exists; choose a new folder'),
        (['--out=/nowhere/a', '--workdir=b'], '/nowhere is not a folder'),
        (['--out=a', '--workdir=/nowhere'], 'holds no checkpoints'),
        (['--out=/nowhere', '--upload', '--repo=a/b'], 'does not describe a network'),
    ],
)
def test_wrong_flags_are_refused(arguments, message):
    with pytest.raises(ConfigError, match=message):
        run_tool(publish, *arguments)
