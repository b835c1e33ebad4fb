"""tools.evaluate on small sets in the real formats, which TFDS's own builders prepare."""

import io
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python import array_record_data_source  # noqa: F401  defines flags once
from PIL import Image

from ssanet_jax import data
from ssanet_jax.data.builders import class_names
from ssanet_jax.data.decoding.images import decode_image
from ssanet_jax.data.labelled import labelled_files
from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import evaluate as module
from ssanet_jax.trained import benchmarks
from ssanet_jax.trained.benchmark_scores import evaluate_part, open_part
from ssanet_jax.trained.benchmarks import BENCHMARKS, Benchmark
from ssanet_jax.trained.load import load_trained
from ssanet_jax.trained.prediction import Predictor
from tests.export.fabricated import make_run
from tests.fabricate import imagenet_archives, tar_bytes
from tests.helpers import run_tool

LABELS = tfds.core.tfds_path('datasets/imagenet2012/labels.txt')
WORDNET = LABELS.read_text().split()
CIFAR = ['airplane', 'automobile', 'bird', 'cat', 'deer', 'dog', 'frog', 'horse', 'ship', 'truck']


RESNET8 = {'model.name': 'resnet8', 'model.stem': 'cifar', 'dataset.image_size': 16}


@pytest.fixture(scope='module')
def imagenet_run(tmp_path_factory):
    names = class_names(tfds.features.ClassLabel(names_file=LABELS))
    folder = tmp_path_factory.mktemp('imagenet')
    recipe = {'recipe': 'imagenet_ssa50', 'classes': names}
    return make_run(folder / 'run', folder / 'data', **recipe, **RESNET8)


@pytest.fixture(scope='module')
def cifar_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp('cifar')
    recipe = {'recipe': 'cifar10_ssa50', 'classes': CIFAR}
    return make_run(folder / 'run', folder / 'data', **recipe, **RESNET8)


@pytest.fixture
def prepare(monkeypatch, tmp_path):
    """Builds a dataset of TFDS in the run's folder, with files in place of its downloads."""

    def build(name, run, *, folder=None, files=None, file_format='array_record'):
        manager = tfds.download.DownloadManager
        monkeypatch.setattr(manager, 'download_and_extract', lambda self, url: str(folder))
        monkeypatch.setattr(manager, 'download', lambda self, url: files)
        builder = tfds.builder(name, data_dir=run.parent / 'data', file_format=file_format)
        builder.download_and_prepare(
            download_config=tfds.download.DownloadConfig(manual_dir=tmp_path)
        )

    return build


def jpegs(number, seed):
    """Encoded images of noise, 24 x 20 pixels."""
    rng = np.random.default_rng(seed)
    for _ in range(number):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (20, 24, 3), np.uint8)).save(file, 'JPEG')
        yield file.getvalue()


def ranked(run, files, columns=None):
    """Labels from the likeliest to the least likely of each file."""
    trained = load_trained(run, 'latest')
    predictor = Predictor(trained, 8)
    columns = np.arange(len(trained.classes)) if columns is None else np.asarray(columns)
    (batch,) = data.file_batches(files, trained.config.dataset, len(files))
    logits = predictor.logits(batch.image)[:, columns]
    return columns[np.argsort(-logits, axis=1, kind='stable')]


def results(capsys, run, *arguments):
    capsys.readouterr()
    fixed = ['--checkpoint=latest', '--format=json', '--batch_size=4']
    run_tool(module, f'--workdir={run}', *fixed, *arguments)
    return json.loads(capsys.readouterr().out)


def shares(row):
    return [row[name] for name in ('top-1, %', 'top-5, %', 'images', 'without a label')]


def write_classes(folder, files, names):
    """FOLDER/CLASS/NUMBER.jpeg."""
    for number, (file, name) in enumerate(zip(files, names, strict=True)):
        (folder / name).mkdir(parents=True, exist_ok=True)
        (folder / name / f'{number}.jpeg').write_bytes(file)


def test_imagenet_v2_counts_each_image_once(imagenet_run, prepare, tmp_path, capsys):
    """Labels are the prediction for 5 of 11 images, the fifth class for 3, the sixth for 3."""
    files = list(jpegs(11, seed=0))
    place = [0] * 5 + [4] * 3 + [5] * 3
    labels = ranked(imagenet_run, files)[np.arange(11), place]
    root = tmp_path / 'imagenetv2-matched-frequency-format-val'
    write_classes(root, files, map(str, labels))
    prepare('imagenet_v2/matched-frequency', imagenet_run, folder=tmp_path)
    (table,) = results(capsys, imagenet_run, '--on=imagenet_v2')
    assert shares(table['rows'][0]) == [pytest.approx(500 / 11), pytest.approx(800 / 11), 11, 0]
    assert table['title'] == 'resnet8, step 3, trained on imagenet2012:5.*.*'


def test_imagenet_r_chooses_among_its_200_classes(imagenet_run, prepare, tmp_path, capsys):
    """From tfrecord files, one of whose images cannot be decoded."""
    files = list(jpegs(9, seed=1))
    path = data.__path__[0]
    with open(f'{path}/imagenet_r_classes.txt') as lines:
        columns = [WORDNET.index(line.strip()) for line in lines]
    orders = ranked(imagenet_run, files, columns)
    labels = orders[np.arange(9), [0, 0, 0, 0, 1, 2, 7, 8, 9]]
    everywhere = ranked(imagenet_run, files)[:, 0]
    assert (everywhere[:4] == labels[:4]).sum() < 4  # among all classes others would be likelier
    names = [WORDNET[label] for label in [*labels, columns[0]]]
    write_classes(tmp_path / 'imagenet-r', [*files, b'no image'], names)
    prepare('imagenet_r', imagenet_run, folder=tmp_path, file_format='tfrecord')
    (table,) = results(capsys, imagenet_run, '--on=imagenet_r')
    assert shares(table['rows'][0]) == [40.0, 60.0, 10, 0]
    assert table['notes'] == ['Undecodable images, counted as incorrect: 1.']


def test_real_labels_are_sets_and_may_be_empty(imagenet_run, prepare, tmp_path, capsys):
    files = list(jpegs(6, seed=2))
    first, second, *_, last = ranked(imagenet_run, files).T
    sets = [[first[0]], [last[1], first[1]], [second[2], last[2]], [last[3]], [], []]
    names = [f'ILSVRC2012_val_{number + 1:08}.JPEG' for number in range(6)]
    (tmp_path / 'ILSVRC2012_img_val.tar').write_bytes(
        tar_bytes(dict(zip(names, files, strict=True)))
    )
    (tmp_path / 'real.json').write_text(json.dumps([list(map(int, labels)) for labels in sets]))
    prepare('imagenet2012_real', imagenet_run, files=str(tmp_path / 'real.json'))
    (table,) = results(capsys, imagenet_run, '--on=imagenet_real')
    assert shares(table['rows'][0]) == [50.0, 75.0, 4, 2]
    assert table['notes'] == ['Images without a label are left out.']


def test_cifar10_1_and_corruptions_are_read_from_their_arrays(
    cifar_run, prepare, tmp_path, capsys, monkeypatch
):
    images = np.random.default_rng(3).integers(0, 256, (25, 32, 32, 3), np.uint8)
    encoded = []
    for image in images:
        file = io.BytesIO()
        Image.fromarray(image).save(file, 'PNG')
        encoded.append(file.getvalue())
    orders = ranked(cifar_run, encoded)

    np.save(tmp_path / 'data.npy', images[:7])
    np.save(tmp_path / 'labels.npy', orders[np.arange(7), [0, 0, 0, 4, 4, 5, 9]].astype(np.int32))
    paths = [str(tmp_path / 'data.npy'), str(tmp_path / 'labels.npy')]
    prepare('cifar10_1/v6', cifar_run, files=paths)

    (tmp_path / 'CIFAR-10-C').mkdir()
    np.save(tmp_path / 'CIFAR-10-C' / 'fog.npy', images)  # five severities of five images
    truth = orders[:5, 0]
    np.save(tmp_path / 'CIFAR-10-C' / 'labels.npy', np.tile(truth, 5).astype(np.uint8))
    parts = {key: name for key, name in BENCHMARKS['cifar10_c'].parts.items() if key[0] == 'fog'}
    for name in parts.values():
        prepare(name, cifar_run, folder=tmp_path)
    monkeypatch.setitem(benchmarks.BENCHMARKS, 'cifar10_c', Benchmark(parts))

    digits = load_trained(cifar_run, 'latest')._replace(classes=tuple('0123456789'))
    with pytest.raises(ConfigError, match="as 'airplane', but the network has 10 others, as '0'"):
        open_part(digits, BENCHMARKS['cifar10_1'], 'cifar10_1/v6')

    clean, fog = results(capsys, cifar_run, '--on=cifar10_1,cifar10_c')
    assert shares(clean['rows'][0]) == [pytest.approx(300 / 7), pytest.approx(500 / 7), 7, 0]
    expected = [100 * np.mean(orders[5 * s : 5 * s + 5, 0] != truth) for s in range(5)]
    assert expected[0] == 0
    row = fog['rows'][0]
    assert [row[str(severity)] for severity in range(1, 6)] == pytest.approx(expected)
    assert row['mean'] == pytest.approx(np.mean(expected))
    assert clean['rows'][1]['top-1, %'] == pytest.approx(100 - np.mean(expected))
    assert clean['rows'][1]['images'] == 25


def test_imagenet_c_is_prepared_from_the_validation_images(imagenet_run, prepare, tmp_path):
    imagenet_archives(tmp_path, train_per_class=1, num_val=4)
    (tmp_path / 'ILSVRC2012_img_test.tar').unlink()  # TFDS would read it as a training set
    parts = {('fog', 1): 'imagenet2012_corrupted/gaussian_noise_1'}
    prepare(parts['fog', 1], imagenet_run, files=[])
    trained = load_trained(imagenet_run, 'latest')
    benchmark = BENCHMARKS['imagenet_c']._replace(parts=parts)
    part = open_part(trained, benchmark, parts['fog', 1])
    assert (part.size, len(part.columns)) == (4, 1000)
    examples = list(labelled_files(part.dataset, benchmark.split, benchmark.label))
    assert {decode_image(file, part.dataset).shape for file, _ in examples} == {(224, 224, 3)}
    assert evaluate_part(Predictor(trained, 8), benchmark, part).images == 4


def test_corrupted_images_are_not_cropped_again(imagenet_run, monkeypatch):
    """They are stored as crops of 224 pixels."""
    opened = []

    def stop(dataset):
        opened.append(dataset.eval_crop)
        raise ConfigError('stop')

    monkeypatch.setattr('ssanet_jax.data.builders.open_builder', stop)
    trained = load_trained(imagenet_run, 'latest')
    for name in ('imagenet_c', 'imagenet_sketch'):
        with pytest.raises(ConfigError, match='stop'):
            open_part(trained, BENCHMARKS[name], 'any')
    assert opened == ['whole', 'center']


def test_mistakes_have_one_line_errors(imagenet_run, tmp_path):
    with pytest.raises(ConfigError, match=r'--on=imagenet_v3 is not known; nearest: imagenet_v2'):
        run_tool(module, f'--workdir={imagenet_run}', '--on=imagenet_r,imagenet_v3')
    missing = [f'--workdir={imagenet_run}', '--checkpoint=latest', f'--data_dir={tmp_path}']
    message = r'imagenet_sketch/\S+ is not prepared .*ssanet prepare --dataset=imagenet_sketch'
    with pytest.raises(ConfigError, match=message):
        run_tool(module, *missing, '--on=imagenet_sketch')
    with pytest.raises(ConfigError, match=r'imagenet2012_corrupted\S+ is not prepared'):
        run_tool(module, *missing, '--on=imagenet_c')


def test_a_network_with_other_classes_is_refused(cifar_run, prepare, tmp_path):
    write_classes(tmp_path / 'imagenet-a', jpegs(1, seed=5), ['n01498041'])
    prepare('imagenet_a', cifar_run, folder=tmp_path)
    message = r"imagenet_a has 1,000 classes, as 'tench', but .* has 10 others, as 'airplane'"
    with pytest.raises(ConfigError, match=message):
        run_tool(module, f'--workdir={cifar_run}', '--checkpoint=latest', '--on=imagenet_a')
