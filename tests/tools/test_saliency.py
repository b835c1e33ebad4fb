"""tools.saliency on digits: files, output and errors."""

import json
import os
import re
import shutil
from html.parser import HTMLParser
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

import ssanet_jax
from ssanet_jax import data
from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import saliency as module
from ssanet_jax.trained.saliency import explain
from tests.browser import DESKTOP, PHONE, messages, open_page, requests
from tests.helpers import ROOT, run_tool


def tool(capfd, *arguments):
    """Runs the command in this process; returns exit code, stdout and stderr."""
    with pytest.raises(SystemExit) as ended:
        run_tool(module, *arguments)
    return ended.value.code, *capfd.readouterr()


@pytest.fixture(scope='module')
def trained(digits_run):
    return ssanet_jax.load(str(digits_run))


@pytest.fixture(scope='module')
def images(trained):
    """Five images of the test split, uint8 [5, 8, 8, 3]."""
    return next(data.eval_batches(trained.config, 'test'))['image'][:5]


@pytest.fixture(scope='module')
def folder(images, tmp_path_factory):
    """A folder of five digits, two with the same name and one with an odd name, and a non-image."""
    base = tmp_path_factory.mktemp('photos')
    for name, image in zip(['a/1.png', 'a/2.png', 'b/1.png', 'b/3.png'], images, strict=False):
        (base / name).parent.mkdir(exist_ok=True)
        Image.fromarray(image[..., 0]).save(base / name)
    Image.fromarray(images[4]).save(base / 'b' / '4 <b>&"%\u00e9.png')
    (base / 'b' / 'broken.png').write_bytes(b'nothing')
    return base


@pytest.fixture(scope='module')
def written(digits_run, folder, tmp_path_factory):
    """The output folder of a call with --raw, its exit code and its output."""
    out = tmp_path_factory.mktemp('out') / 'new'
    with pytest.MonkeyPatch.context() as patch:
        printed = []
        patch.setattr('builtins.print', lambda *line, **_: printed.append(' '.join(line)))
        call = [f'--workdir={digits_run}', f'--out={out}', '--raw', folder, '--batch_size=3']
        with pytest.raises(SystemExit) as ended:
            run_tool(module, *call)
    return out, ended.value.code, printed


class Links(HTMLParser):
    """The links, images and words of a page."""

    def __init__(self, text):
        super().__init__()
        self.targets, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.targets += [value for name, value in attrs if name in ('href', 'src')]
        assert tag != 'b'  # of the odd name

    def handle_data(self, data):
        self.words.append(data)


def test_each_image_has_a_figure_and_the_page_shows_all(written, folder):
    out, code, printed = written
    names = [path.stem for path in sorted(out.glob('*.png'))]
    assert [name[:6] for name in names] == ['0001_1', '0002_2', '0003_1', '0004_3', '0005_4']
    page = (out / 'index.html').read_text()
    links = Links(page)
    assert links.targets == [quote(f'{name}.png') for name in names for _ in range(2)]
    assert all(re.fullmatch(r'[\w.-]+', name) for name in names)
    assert names[-1].endswith('é')  # letters of any script stay
    assert 'http' not in page
    words = ' '.join(links.words)
    assert str(folder / 'b' / '4 <b>&"%\u00e9.png') in words
    assert f'{folder}/b/broken.png: It is none of JPEG, PNG' in words
    assert code == 1
    assert printed[-2:] == [
        f'5 images, shown in {out}/index.html',
        '1 of 6 images could not be read.',
    ]


def test_raw_maps_are_those_of_the_run(written, trained, images):
    out, _, _ = written
    saliencies = [*explain(trained, images[:3]), *explain(trained, images[2:])[1:]]  # compiles once
    for one, path in zip(saliencies, sorted(out.glob('*.npz')), strict=True):
        with np.load(path) as arrays:
            assert list(arrays) == ['image', *one.maps, *one.blocks]
            np.testing.assert_array_equal(arrays['image'], one.image)
            for name, value in (one.maps | one.blocks).items():
                np.testing.assert_allclose(arrays[name], value, rtol=1e-4, atol=1e-5)
            assert len(one.blocks) == 3


def test_the_page_fits_phone_and_desktop_and_requests_nothing_else(written, chromium):
    out, _, _ = written
    for size in (PHONE, DESKTOP):
        open_page(chromium, out / 'index.html', size)
        chromium.execute_script(
            'for (const image of document.images) image.loading = "eager"; '
            'return Promise.all([...document.images].map(image => image.decode()))'
        )
        widths = chromium.execute_script(
            'return [...document.images].map(image => [image.naturalWidth, image.width])'
        )
        assert all(natural > 300 and 300 < shown <= size[0] for natural, shown in widths)
        assert chromium.execute_script('return document.documentElement.scrollWidth') <= size[0]
        assert all(request.startswith('file://') for request in requests(chromium))
        assert messages(chromium) == []


def test_boxes_give_a_table_of_localization_scores(
    capfd, digits_run, folder, tmp_path, trained, images
):
    boxes = {
        '2.png': [[2, 2, 7, 6]],
        f'{folder}/a/1.png': [[0, 0, 8, 3]],
        '3.png': [[9, 9, 20, 20]],
    }
    path = tmp_path / 'boxes.json'
    path.write_text(json.dumps(boxes))
    code, out, _ = tool(
        capfd,
        f'--workdir={digits_run}',
        f'--out={tmp_path}/out',
        f'--boxes={path}',
        '--format=json',
        folder / 'a',
        folder / 'b' / '3.png',
    )
    (table,) = json.loads(out)
    rows = {row['map']: row for row in table['rows']}
    assert list(rows) == ['stage1', 'stage2', 'stage3', 'mean', 'Grad-CAM', 'center', 'uniform']
    hits, shares = [], []
    regions = [(slice(0, 8), slice(0, 3)), (slice(2, 7), slice(2, 6))]
    for one, region in zip(explain(trained, images[:3]), regions, strict=False):
        values = one.maps['stage1'].astype(np.float64)  # as large as the image
        hits.append(values[region].max() == values.max())
        shares.append((values - values.min())[region].sum() / (values - values.min()).sum())
    assert rows['stage1']['pointing game'] == np.mean(hits)
    assert rows['stage1']['energy in the boxes'] == pytest.approx(np.mean(shares), rel=1e-3)
    area = (24 + 20) / 2 / 64
    assert rows['uniform'] == {
        'map': 'uniform',
        'pointing game': pytest.approx(area),
        'energy in the boxes': pytest.approx(area),
    }
    assert rows['center']['pointing game'] == 0.5
    assert table['notes'][0].startswith('2 of 3 images. Excluded: 0 without boxes, 1 whose boxes')
    assert code == 0


def test_text_in_an_image_is_ignored_and_what_is_no_image_is_skipped(
    capfd, digits_run, tmp_path, images
):
    """Pillow refuses to unpack as much text; a pipe has no end."""
    photos = tmp_path / 'photos'
    photos.mkdir()
    for number, image in enumerate(images[:3]):
        Image.fromarray(image).save(photos / f'{number}.png')
    text = PngImagePlugin.PngInfo()
    text.add_text('comment', 'a' * (PngImagePlugin.MAX_TEXT_CHUNK + 1), zip=True)
    Image.fromarray(images[1]).save(photos / '1.png', pnginfo=text)
    (photos / '3.png').write_bytes(b'\x89PNG')
    os.mkfifo(photos / '4.png')
    path = tmp_path / 'boxes.json'
    path.write_text(json.dumps({f'{number}.png': [[1, 1, 7, 7]] for number in range(5)}))
    code, out, err = tool(
        capfd,
        f'--workdir={digits_run}',
        f'--out={tmp_path}/out',
        f'--boxes={path}',
        '--batch_size=1',
        *(photos / f'{number}.png' for number in range(5)),
    )
    assert code == 1
    assert '3 of 3 images. Excluded: 0 without boxes, 0 whose' in ' '.join(out.split())
    assert f'{photos}/4.png: It cannot be read: it is not a regular file.' in err
    assert '2 of 5 images could not be read.' in err
    assert len(list((tmp_path / 'out').glob('*.png'))) == 3
    assert (tmp_path / 'out' / 'index.html').exists()


@pytest.mark.parametrize(
    ('given', 'message'),
    [
        (['--out={tmp}/new'], 'Name images'),
        (['--out={tmp}', '1.png'], '--out=.* exists and is not an empty'),
        (['--out={tmp}/file', '1.png'], '--out=.*file exists and is not an empty'),
        (
            ['--out={tmp}/new', '1.png', '--tolerance=3'],
            '--tolerance has no effect without --boxes',
        ),
        (['--out={tmp}/new', '1.png', '--format=json'], '--format has no effect without --boxes'),
        (['--out={tmp}/new', '1.png', '--boxes={tmp}/none'], 'none cannot be read'),
        (['--out={tmp}/new', '1.png', '--boxes={tmp}/file'], 'None of the 1 images has boxes'),
        (['--out={tmp}/new', '1.png', '--checkpoint=7'], '--checkpoint=7 is not in'),
        (['--out={tmp}/file/new', '1.png', '2.png', '3.png'], '--out=.*file/new cannot be written'),
    ],
    ids=range(9),
)
def test_invalid_arguments_are_refused(capfd, digits_run, tmp_path, given, message):
    (tmp_path / 'file').write_text('{"other.png": [[0, 0, 1, 1]]}')
    given = [argument.format(tmp=tmp_path) for argument in given]
    with pytest.raises(ConfigError, match=message):
        tool(capfd, f'--workdir={digits_run}', *given)
    assert not (tmp_path / 'new').exists()


def test_a_network_without_maps_is_refused_and_nothing_is_written(
    capfd, digits_run, folder, tmp_path
):
    workdir = tmp_path / 'se'
    shutil.copytree(digits_run, workdir)
    config = json.loads((workdir / 'config.json').read_text())
    config['model']['name'] = 'resnet8'  # which leaves the gates' parameters unused
    (workdir / 'config.json').write_text(json.dumps(config))
    with pytest.raises(ConfigError, match=r'it has no attention\); choose ssa'):
        tool(capfd, f'--workdir={workdir}', f'--out={tmp_path}/new', folder / 'a')
    assert not (tmp_path / 'new').exists()


@pytest.mark.slow
def test_the_code_in_the_docs_runs(digits_run, tmp_path, monkeypatch):
    """docs/saliency.md, in order, on a run of a few steps."""
    page = (ROOT / 'docs/saliency.md').read_text()
    monkeypatch.chdir(tmp_path)
    names = {}
    for code in re.findall(r'```python\n(.*?)```', page, re.DOTALL):
        code = code.replace('runs/digits', str(digits_run))
        exec(code.replace('docs/saliency_digits.png', 'picture.png'), names)
    with Image.open('picture.png') as picture:
        assert picture.width > 500
    assert set(names['table']) >= {'stage1', 'mean', 'Grad-CAM', 'uniform'}
