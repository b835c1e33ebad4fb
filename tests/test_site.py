"""The pages that `make docs` builds, in Chromium."""

import os
import subprocess
import sys

import pytest

from tests.browser import DESKTOP, PHONE, messages, open_page, requests
from tests.helpers import ROOT

pytest.importorskip('sphinx')
pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    out = tmp_path_factory.mktemp('site')
    command = [sys.executable, '-m', 'sphinx', '-c', 'docs', '-d', out / 'doctrees', '-q', '-W']
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    subprocess.run([*command, '.', out / 'html'], cwd=ROOT, env=environment, check=True)
    return out / 'html'


@pytest.mark.parametrize('size', [PHONE, DESKTOP], ids=['phone', 'desktop'])
def test_every_page_fits_the_screen_and_loads_nothing_from_elsewhere(site, chromium, size):
    pages = [path for path in site.rglob('*.html') if '_modules' not in path.parts]
    assert len(pages) > 40
    for page in pages:
        open_page(chromium, page, size)
        width = chromium.execute_script('return document.documentElement.scrollWidth')
        assert width <= size[0], page
        assert all(address.startswith(site.as_uri()) for address in requests(chromium)), page
        assert messages(chromium) == [], page


def test_search_finds_a_block_by_its_name(site, chromium):
    open_page(chromium, f'{(site / "search.html").as_uri()}?q=SSABlock', PHONE)
    chromium.implicitly_wait(10)
    found = chromium.find_element('css selector', '#search-results li a')
    assert found.text == 'ssanet_jax.attention.SSABlock'
    assert found.get_attribute('href').endswith('attention.html#ssanet_jax.attention.SSABlock')
