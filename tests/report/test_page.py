"""The complete page: in a browser, of incomplete runs, and with untrusted names."""

import datetime
import html
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import accuracy_score

from ssanet_jax.errors import ConfigError
from ssanet_jax.report import page, write_report
from ssanet_jax.report.evaluation import evaluate_trained
from tests.browser import DESKTOP, PHONE, messages, open_page, requests
from tests.report.runs import random_images, without_checkpoint
from tests.report.words import read


@pytest.fixture(scope='module')
def digits_page(digits_run, tmp_path_factory):
    path = tmp_path_factory.mktemp('page') / 'digits.html'
    return Path(write_report(digits_run, out=path))


def test_the_results_are_those_of_the_run(digits_run, digits_page):
    best = json.loads((digits_run / 'summary.json').read_text())['best']
    words = read(digits_page)
    assert f'top-1 {best["top1"]:.2f} % top-5 {best["top5"]:.2f} %' in words
    (loss,) = re.findall(r'loss ([\d.]+) images 360', words)
    assert float(loss) == pytest.approx(best['loss'], abs=2e-4)
    assert f'step {best["step"]} (epoch {best["step"] * 64 / 1437:.1f})' in words
    assert 'parameters 75,296 MACs 0.7694 M at 8x8' in words
    assert 'The run logged the same results at this step.' in words
    start = json.loads((digits_run / 'starts.jsonl').read_text())
    assert f'jax {start["versions"]["jax"]}' in words
    assert 'devices 8 x cpu' in words
    times = re.findall(r'(?:first start| on) (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC', words)
    first, written = (datetime.datetime.fromisoformat(f'{time}+00:00') for time in times)
    assert first <= written <= datetime.datetime.now(datetime.UTC)


def test_the_page_has_every_section_and_is_small(digits_page):
    words = read(digits_page)
    for part in (
        'Learning curves', 'Confusions', 'Hardest images', 'Calibration', 'cross-fitted', 'Gates',
        'layer3_0/ssa', 'Cost', 'whole network', 'optimizer.schedule cosine step',
        'All fields', 'Starts',
    ):  # fmt: skip
        assert part in words, part
    assert digits_page.stat().st_size < 500_000


@pytest.mark.parametrize('scheme', ['light', 'dark'])
@pytest.mark.parametrize('size', [PHONE, DESKTOP], ids=['phone', 'desktop'])
def test_a_browser_renders_it_without_errors_or_requests(size, scheme, digits_page, chromium):
    open_page(chromium, digits_page, size, scheme)
    width, window, broken, pictures = chromium.execute_script(
        'const images = [...document.images];'
        'return [document.documentElement.scrollWidth, innerWidth,'
        ' images.filter(image => !image.complete || !image.naturalWidth).length, images.length]'
    )
    assert window == size[0]
    assert width <= window
    assert (broken, pictures) == (0, 3 + 24 + 2)
    longest, shortest = chromium.execute_script(
        'const heights = name => [...document.querySelectorAll(name)].map(e => e.offsetHeight);'
        'return [Math.max(...heights("p")), Math.min(...heights(".charts img, .beside img"))]'
    )
    assert longest <= shortest, 'a paragraph is longer than a chart'
    assert requests(chromium) == [digits_page.as_uri()]
    assert messages(chromium) == []
    background = chromium.execute_script('return getComputedStyle(document.body).backgroundColor')
    red = int(re.findall(r'\d+', background)[0])
    assert red < 60 if scheme == 'dark' else red > 200


def test_the_browser_test_detects_faults(tmp_path, chromium):
    bad = tmp_path / 'bad.html'
    bad.write_text(
        '<meta name=viewport content="width=device-width"><div style="width:800px">.</div>'
        '<img src="none.png"><script>none()</script>'
    )
    open_page(chromium, bad, PHONE)
    assert chromium.execute_script('return document.documentElement.scrollWidth') > PHONE[0]
    assert len(requests(chromium)) == 2
    assert len(messages(chromium)) == 2
    assert chromium.execute_script('return document.images[0].naturalWidth') == 0


def test_untrusted_names_are_escaped(fabricated):
    evil = ['<script>alert(1)</script>', '"><img src=x onerror=alert(1)>', "O'Neill & $1$"]
    workdir, _ = fabricated(random_images(60), np.arange(60) % 3, evil)
    fields = json.loads((workdir / 'config.json').read_text())
    fields['dataset']['data_dir'] = '</style><script>alert(2)</script>'
    (workdir / 'config.json').write_text(json.dumps(fields))
    (workdir / 'starts.jsonl').write_text('{"host": "<script>alert(3)</script>"}\n')
    path = write_report(workdir)
    text, words = path.read_text(), read(path)
    assert '<script' not in text
    assert 'onerror=' not in re.sub(r'&#34;&gt;&lt;img src=x onerror=', '', text)
    for name in (*evil, '</style><script>alert(2)</script>', '<script>alert(3)</script>'):
        assert name in html.unescape(words)


def test_undecodable_images_count_as_incorrect_and_are_noted(fabricated):
    label = np.arange(120) % 3
    label[[5, 50, 119]] = -1
    image = random_images(120)
    workdir, trained = fabricated(image, label, ['a', 'b', 'c'])
    words = read(write_report(workdir))
    kernel, bias = (np.asarray(trained.variables['params']['fc'][k]) for k in ('kernel', 'bias'))
    mean, std = (np.array(trained.config.dataset[name]) for name in ('mean', 'std'))
    logits = ((image / 255 - mean) / std).mean(axis=(1, 2)) @ kernel + bias
    expected = 100 * accuracy_score(label, logits.argmax(axis=1))
    assert f'top-1 {expected:.2f} %' in words
    assert 'images 120' in words
    assert '3 of 120 evaluation images cannot be decoded' in words
    assert 'counts the 117 evaluation images' in words
    assert 'top-5' not in words  # trivial with 3 classes


def test_a_page_where_no_image_could_be_decoded(fabricated):
    workdir, _ = fabricated(random_images(4), np.full(4, -1), ['a', 'b'])
    words = read(write_report(workdir))
    assert 'top-1 0.00 %' in words
    assert '4 of 4 evaluation images cannot be decoded' in words
    assert 'Confusions' not in words


@pytest.mark.parametrize(('classes', 'images'), [(1, 40), (2, 2), (3, 1), (4, 40)])
def test_few_classes_and_few_images(classes, images, fabricated):
    names = [f'class {k}' for k in range(classes)]
    workdir, _ = fabricated(random_images(images), np.arange(images) % classes, names)
    words = read(write_report(workdir))
    assert f'images {images}' in words
    assert ('Calibration' in words) == (images > 1)
    assert 'The network has no attention gates.' in words


def test_a_thousand_classes_and_large_images_fit_a_small_page(fabricated):
    names = [f'n{k:08} a rather long name of a class' for k in range(1000)]
    workdir, _ = fabricated(random_images(300, size=224), np.arange(300) * 3, names)
    path = write_report(workdir)
    words = read(path)
    assert path.stat().length < 1_000_000
    assert 'Worst classes' in words
    assert 'Best classes' in words
    assert 'Most frequent confusions' in words
    assert 'confusion matrix' not in words


def test_a_diverged_network_is_noted(fabricated):
    workdir, _ = fabricated(random_images(60), np.arange(60) % 3, ['a', 'b', 'c'], scale=np.nan)
    words = read(write_report(workdir))
    assert 'loss not finite' in words
    assert 'logits of 60 of 60 images are not finite: the network has diverged' in words
    assert 'Hardest' not in words


def test_a_run_that_diverged_before_its_first_checkpoint(tmp_path):
    lines = [
        {'step': 1, 'split': 'train', 'loss': 2.3, 'top1': 10.0, 'learning_rate': 1e30},
        {'step': 2, 'split': 'train', 'loss': np.nan, 'top1': 0.0, 'learning_rate': 1e30},
    ]
    words = read(write_report(without_checkpoint(tmp_path / 'run', lines)))
    assert 'There is no checkpoint to evaluate yet' in words
    assert 'Lines of metrics.jsonl with a non-finite value: 1;' in words
    assert 'All fields have their defaults.' in words
    assert 'This run has no starts.jsonl' in words


def test_a_run_without_metrics(tmp_path):
    words = read(write_report(without_checkpoint(tmp_path / 'run')))
    assert 'metrics.jsonl has no curves yet.' in words


def test_an_old_run_without_classes_starts_or_data(digits_run, tmp_path):
    workdir = tmp_path / 'old'
    shutil.copytree(digits_run, workdir)
    (workdir / 'classes.json').unlink()
    (workdir / 'starts.jsonl').unlink()
    fields = json.loads((workdir / 'config.json').read_text())
    fields['dataset'] |= {'name': 'cifar10', 'data_dir': str(tmp_path / 'none')}
    (workdir / 'config.json').write_text(json.dumps(fields))
    words = read(write_report(workdir))
    best = json.loads((workdir / 'summary.json').read_text())['best']
    assert 'Sections that need the evaluation images are omitted: ' in words
    assert 'ssanet prepare --dataset=cifar10' in words
    assert f'top-1 {best["top1"]:.2f} %' in words
    assert 'Results as logged by the run at this step.' in words
    assert 'whole network' in words
    assert f'(epoch {best["step"] / 23:.1f})' in words  # by the first of its evaluations
    assert 'Confusions' not in words


def test_a_dataset_with_other_classes_is_not_evaluated(fabricated, monkeypatch):
    workdir, trained = fabricated(random_images(20), np.arange(20) % 2, ['a', 'b'])
    fewer = trained._replace(classes=('a',))
    monkeypatch.setattr(page, 'load_trained', lambda folder, checkpoint: fewer)
    assert 'has 2 classes, but the network has 1;' in read(write_report(workdir))


def test_results_that_differ_from_the_log_are_noted(fabricated):
    workdir, _ = fabricated(random_images(20), np.arange(20) % 2, ['a', 'b'])
    logged = {'step': 7, 'split': 'eval', 'top1': 99.0, 'top5': 100.0, 'loss': 0.1}
    (workdir / 'metrics.jsonl').write_text(json.dumps({**logged, 'num_examples': 20}) + '\n')
    words = read(write_report(workdir))
    assert (
        'The run logged 99.00 % and a loss of 0.1000 on 20 images at this step; the dataset'
        in words
    )


def test_raw_weights_are_compared_with_their_own_log(fabricated):
    workdir, trained = fabricated(random_images(20), np.arange(20) % 2, ['a', 'b'])
    means = evaluate_trained(trained, hardest=1, sample=1).means()
    logged = {'step': 7, 'split': 'eval', 'top1': 99.0, 'top5': 100.0, 'loss': 0.1}
    logged |= {f'raw/{name}': means[name] for name in ('top1', 'top5', 'loss')}
    (workdir / 'metrics.jsonl').write_text(json.dumps({**logged, 'num_examples': 20}) + '\n')
    assert 'The run logged the same results' in read(write_report(workdir, checkpoint='best:raw'))
    assert 'The run logged 99.00 %' in read(write_report(workdir))


def test_the_published_curve_is_drawn_beside_that_of_the_run(tmp_path):
    lines = [
        {'step': 500 * k, 'split': split, 'loss': 2 / k, 'top1': 10.0 * k, 'learning_rate': 0.1}
        for k in range(1, 9)
        for split in ('train', 'eval')
    ]
    config = {'model': {'name': 'ssa_resnet50'}, 'dataset': {'name': 'cifar10'}}
    path = write_report(without_checkpoint(tmp_path / 'run', lines, **config))
    assert 'released code for this network and dataset (cifar10_ssa_resnet50)' in read(path)
    config['model']['name'] = 'resnet8'
    path = write_report(without_checkpoint(tmp_path / 'other', lines, **config))
    assert 'published' not in read(path)


def test_a_mistake_writes_nothing(tmp_path, digits_run):
    with pytest.raises(ConfigError, match='name the workdir of a run'):
        write_report(tmp_path)
    with pytest.raises(ConfigError, match=r'--checkpoint=9 is not in'):
        write_report(digits_run, checkpoint='9', out=tmp_path / 'x.html')
    with pytest.raises(ConfigError, match='choose a file in an existing folder'):
        write_report(digits_run, out=tmp_path / 'none' / 'x.html')
    with pytest.raises(ConfigError, match='choose a file in an existing folder'):
        write_report(digits_run, out=tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('error', [RuntimeError('no\nmemory'), MemoryError()])
def test_a_failed_report_does_not_fail_the_run(monkeypatch, capsys, error):
    def fail(workdir):
        raise error

    monkeypatch.setattr(page, 'write_report', fail)
    page.report_at_end('runs/x')
    reason = 'no memory' if str(error) else 'MemoryError'
    assert capsys.readouterr().out == (
        f'No report: {reason} Write it with: ssanet report --workdir=runs/x\n'
    )
