"""tools.predict on the images of a dataset, written to files."""

import csv
import io
import json
import os
import shutil
import struct
import zlib
from functools import partial

import numpy as np
import pytest
from PIL import Image

import ssanet_jax
from ssanet_jax import data
from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import cli
from ssanet_jax.tools import predict as module
from ssanet_jax.trained.prediction import Predictor
from tests.helpers import own_flags, quick_jit, run_tool


def tool(capfd, *arguments):
    """Runs the command in this process; returns exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        run_tool(module, *arguments)
    return ended.value.code, *capfd.readouterr()


def png(image):
    file = io.BytesIO()
    Image.fromarray(image).save(file, 'png')
    return file.getvalue()


@pytest.fixture(scope='module')
def trained(digits_run):
    return ssanet_jax.load(str(digits_run))


@pytest.fixture(scope='module')
def digits_test(trained):
    """The test split, uint8 [360, 8, 8, 3], and its labels."""
    batches = list(data.eval_batches(trained.config, 'test'))
    return [
        np.concatenate([batch[name][batch['mask']] for batch in batches])
        for name in ('image', 'label')
    ]


@pytest.fixture(scope='module')
def files(digits_test, tmp_path_factory):
    """A folder with each test image as a grayscale PNG, in order."""
    folder = tmp_path_factory.mktemp('digits')
    for number, image in enumerate(digits_test[0]):
        (folder / f'{number:03}.png').write_bytes(png(image[..., 0]))
    return folder


def test_a_run_is_loaded_with_its_classes_and_its_preprocessing(trained, digits_test):
    assert trained.classes == tuple('0123456789')
    found = np.asarray(trained.preprocess(digits_test[0][:2]))
    np.testing.assert_allclose(found, (digits_test[0][:2] / 255 - 0.3) / 0.37, rtol=1e-5)


def test_predictions_of_files_equal_the_runs_evaluation(
    capfd, digits_run, digits_test, files, trained
):
    code, out, err = tool(capfd, f'--workdir={digits_run}', '--format=jsonl', files)
    results = [json.loads(line) for line in out.splitlines()]
    assert (code, err) == (0, '')
    assert [result['file'] for result in results] == sorted(map(str, files.iterdir()))
    labels = digits_test[1]
    first = np.array([int(result['top'][0]['class']) for result in results])
    five = np.array([[int(g['class']) for g in result['top']] for result in results])
    lines = map(json.loads, (digits_run / 'metrics.jsonl').read_text().splitlines())
    (evaluated,) = (m for m in lines if m['split'] == 'eval' and m['step'] == trained.step)
    assert 100 * (first == labels).mean() == pytest.approx(evaluated['top1'], abs=1e-4)
    assert 100 * (five == labels[:, None]).any(1).mean() == pytest.approx(
        evaluated['top5'], abs=1e-4
    )

    # The probabilities, as the network gives them plainly, without folding or padding.
    apply = quick_jit(partial(trained.model.apply, train=False))
    logits = apply(trained.variables, trained.preprocess(digits_test[0]))
    expected = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    for result, row in zip(results, np.asarray(expected), strict=True):
        top = sorted(row, reverse=True)[:5]
        found = [guess['probability'] for guess in result['top']]
        np.testing.assert_allclose(found, top, rtol=1e-3, atol=1e-6)


def bomb():
    """A PNG whose header claims 2**40 pixels."""
    header = b'IHDR' + struct.pack('>IIBBBBB', 2**20, 2**20, 8, 2, 0, 0, 0)
    end = b'\0\0\0\0IEND' + struct.pack('>I', zlib.crc32(b'IEND'))
    return b'\x89PNG\r\n\x1a\n\0\0\0\r' + header + struct.pack('>I', zlib.crc32(header)) + end


def test_five_broken_images_of_100_are_reported_and_the_others_predicted(
    capfd, digits_run, digits_test, tmp_path
):
    broken = {
        10: b'',
        33: b'not an image',
        50: png(digits_test[0][0])[:60],
        77: bomb(),
        99: None,
    }
    for number in range(100):
        image = broken.get(number, png(digits_test[0][number % 36]))
        path = tmp_path / f'{number:04}.png'
        if image is None:
            path.symlink_to('nowhere')
        else:
            path.write_bytes(image)
    code, out, err = tool(capfd, f'--workdir={digits_run}', '--format=jsonl', tmp_path)
    results = [json.loads(line) for line in out.splitlines()]
    assert code == 1
    assert sum('top' in result for result in results) == 95
    errors = {int(r['file'][-8:-4]): r['error'] for r in results if 'error' in r}
    assert list(errors) == list(broken)
    assert 'empty' in errors[10]
    assert 'none of JPEG, PNG' in errors[33]
    assert 'pixels' in errors[77]
    assert 'No such file' in errors[99]
    assert all(f'{number:04}.png: {reason}' in err for number, reason in errors.items())
    assert '5 of 100 images could not be read.' in err
    again = [
        result['top'] for result in results if result['file'].endswith(('0001.png', '0037.png'))
    ]
    assert again[0] == again[1]


def test_csv_has_a_row_per_class_and_per_error(capfd, digits_run, files):
    code, out, _ = tool(
        capfd,
        f'--workdir={digits_run}',
        '--format=csv',
        '--top=3',
        files / '000.png',
        'none.png',
    )
    rows = list(csv.DictReader(io.StringIO(out)))
    assert code == 1
    assert [row['rank'] for row in rows] == ['1', '2', '3', '']
    assert rows[3]['error'] == 'It cannot be read: No such file or directory.'
    assert float(rows[0]['probability']) > float(rows[1]['probability'])


def test_names_that_attack_a_spreadsheet_or_a_terminal_are_escaped(capsys):
    results = [
        {'file': '=HYPERLINK("a").png', 'top': [{'class': '@SUM(A1)', 'probability': 0.5}]},
        {'file': '\x1b[2J.png', 'error': '+1 is no image.'},
    ]
    with own_flags(module):
        cli.parse(['predict', '--workdir=run', '--format=csv'])
        module._csv(iter(results), 2)
        rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
        module._table(iter(results), 2)
        assert '\x1b' not in capsys.readouterr().out
    assert [row['file'] for row in rows] == ['\'=HYPERLINK("a").png', r'\x1b[2J.png']
    assert [rows[0]['class'], rows[0]['probability']] == ["'@SUM(A1)", '0.5']
    assert rows[1]['error'] == "'+1 is no image."


@pytest.mark.parametrize('form', ['jsonl', 'csv'])
def test_a_progress_bar_on_the_terminal_keeps_out_of_the_output(
    form, capfd, monkeypatch, digits_run, files
):
    monkeypatch.setenv('FORCE_COLOR', '1')  # Standard error is a terminal for rich.
    monkeypatch.setenv('TERM', 'xterm')
    names = [files / '000.png', files / '001.png']
    code, out, err = tool(capfd, f'--workdir={digits_run}', f'--format={form}', *names)
    assert code == 0
    assert 'predicting' in err
    lines = out.splitlines()
    assert len(lines) == (2 if form == 'jsonl' else 1 + 2 * 5)
    assert all(str(name) in out and str(name) not in err for name in names)
    assert '\x1b' not in out


def test_the_table_names_each_image(capfd, digits_run, files):
    code, out, _ = tool(capfd, f'--workdir={digits_run}', '--top=1', files / '00[01].png')
    assert code == 0
    assert all(name in out for name in ('000.png', '001.png', 'most probable first'))


@pytest.mark.parametrize('flags', [[], ['--workdir=a', '--model=b']])
def test_either_a_run_or_a_model_predicts(flags, tmp_path):
    Image.new('RGB', (8, 8)).save(tmp_path / 'x.png')
    with pytest.raises(ConfigError, match='Expected either --workdir, a run, or --model'):
        run_tool(module, *flags, tmp_path / 'x.png')


def test_a_missing_run_is_reported_before_images_are_read(capfd, tmp_path):
    with pytest.raises(ConfigError, match='holds no checkpoints'):
        tool(capfd, f'--workdir={tmp_path}', 'a.png')


def test_invalid_names_and_pipes_are_reported(capfd, digits_run, files, tmp_path):
    pipe = tmp_path / 'pipe.png'
    os.mkfifo(pipe)
    long = 'n' * 300
    code, out, _ = tool(
        capfd, f'--workdir={digits_run}', '--format=jsonl', files / '000.png', long, pipe
    )
    first, *others = map(json.loads, out.splitlines())
    assert code == 1
    assert 'top' in first
    assert [other['error'] for other in others] == [
        'It cannot be read: File name too long.',
        'It cannot be read: it is not a regular file.',
    ]


@pytest.mark.parametrize(
    'images',
    [
        np.zeros((2, 8, 8, 3), np.float32),
        np.zeros((2, 9, 9, 3), np.uint8),
        np.zeros((8, 8, 3), np.uint8),
    ],
    ids=['float', 'size', 'one'],
)
def test_images_of_another_dtype_or_size_are_refused(trained, images):
    with pytest.raises(ValueError, match=r'expects uint8 images \[N, 8, 8, 3\], got'):
        Predictor(trained).logits(images)


def test_an_unfitting_classes_json_is_refused(digits_run, tmp_path):
    workdir = shutil.copytree(digits_run, tmp_path / 'run')
    for text, message in (
        ('["a", "b"]', 'names 2 classes, and the network has 10'),
        ('{"a": 1}', 'expected a list of names, got dict'),
        ('[', 'classes.json is damaged'),
    ):
        (workdir / 'classes.json').write_text(text)
        with pytest.raises(ConfigError, match=message):
            ssanet_jax.load(str(workdir))
    (workdir / 'classes.json').unlink()
    assert ssanet_jax.load(str(workdir)).classes == tuple('0123456789')


def test_any_number_of_images_gives_the_same_logits(trained, digits_test):
    images = digits_test[0][:21]
    expected = Predictor(trained, batch_size=32).logits(images)
    parts = Predictor(trained, batch_size=8)
    np.testing.assert_allclose(parts.logits(images), expected, rtol=1e-5, atol=1e-5)
    assert parts.logits(images[:0]).shape == (0, 10)
