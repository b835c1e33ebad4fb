"""The report on a dataset: tables, JSON, page and exit code."""

import json
import re
import shutil

import pytest
from PIL import Image

from ssanet_jax import data
from ssanet_jax.errors import ConfigError
from ssanet_jax.tools import check_data
from tests import fabricate
from tests.helpers import ROOT, run_tool


@pytest.fixture
def root(tmp_path):
    return fabricate.image_folder(tmp_path / 'trees', per_class=3)


def run(capsys, root, *arguments):
    """The exit code and what was printed."""
    with pytest.raises(SystemExit) as ended:
        run_tool(
            check_data,
            f'--config={ROOT}/configs/folder.py',
            f'--config.dataset.data_dir={root}',
            *arguments,
        )
    return ended.value.code, capsys.readouterr().out


def test_a_good_folder_is_reported_with_code_0(root, capsys):
    code, text = run(capsys, root)
    assert code == 0
    for words in (
        'Images by class',
        'cedar',
        'Sizes of images',
        '9 evaluation images: the standard',
    ):
        assert words in text
    for words in ('cannot be used', 'same content', 'Left out'):
        assert words not in text


def test_the_json_has_every_table(root, capsys):
    (root / 'train' / 'ash' / '0.jpg').write_bytes(b'')
    shutil.copy(root / 'train/beech/1.jpg', root / 'validation/beech/1.jpg')
    (root / 'notes.txt').touch()
    code, text = run(capsys, root, '--format=json')
    assert code == 1
    tables = {table['title']: table for table in json.loads(text)}
    assert tables['Images by class']['rows'] == [
        *({'class': name, 'train': 3, 'validation': 3} for name in ('ash', 'beech', 'cedar')),
        {'class': 'all', 'train': 9, 'validation': 9},
    ]
    (bad,) = tables['Images that cannot be used']['rows']
    assert bad == {
        'split': 'train',
        'class': 'ash',
        'file': str(root / 'train/ash/0.jpg'),
        'problem': 'The file is empty.',
    }
    (leak,) = tables['Files with the same content']['rows']
    assert leak['problem'] == 'in training and evaluation'
    (left_out,) = tables['Left out']['rows']
    assert left_out == {'reason': 'not named like an image', 'number': 1, 'as': 'notes.txt'}
    notes = ' '.join(tables['Images by class']['notes'])
    assert 'Images that cannot be used: 1.' in notes
    assert 'Leakage: 1 images' in notes


def test_the_page_escapes_the_names_of_classes_and_files(root, tmp_path, capsys):
    for split in ('train', 'validation'):
        (root / split / 'ash').rename(root / split / '<b>ash')
    Image.new('L', (8, 8)).save(root / 'train' / 'cedar' / '<script>.png')
    shutil.copy(root / 'train/cedar/<script>.png', root / 'train/cedar/&amp;.png')
    code, _ = run(capsys, root, f'--out={tmp_path}/page.html')
    page = (tmp_path / 'page.html').read_text()
    assert code == 0
    assert '&lt;b&gt;ash' in page
    assert '&lt;script&gt;.png' in page
    assert '&amp;amp;.png' in page
    assert not re.search('<script|<b>', page)
    assert page.count('<tr>') == 1 + 4 + 1 + 8 + 1 + 1  # classes, sizes and duplicates
    assert "default-src 'none'" in page


def test_a_prepared_dataset_can_be_checked(digits, capsys):
    data.dataset_info(digits)  # prepares it
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        run_tool(
            check_data,
            f'--config={ROOT}/configs/digits_ssa20.py',
            f'--config.dataset.data_dir={digits.dataset.data_dir}',
            '--format=json',
        )
    tables = {table['title']: table for table in json.loads(capsys.readouterr().out)}
    assert ended.value.code == 0
    assert tables['Images by class']['rows'][-1] == {'class': 'all', 'train': 1437, 'test': 360}
    assert {row['largest'] for row in tables['Sizes of images that can be decoded']['rows']} >= {
        8,
        64,
    }


def test_a_page_in_no_folder_is_refused_before_the_scan(root, capsys):
    with pytest.raises(ConfigError, match=r'none/page\.html is in no existing folder'):
        run_tool(
            check_data,
            f'--config={ROOT}/configs/folder.py',
            f'--config.dataset.data_dir={root}',
            '--out=none/page.html',
        )
