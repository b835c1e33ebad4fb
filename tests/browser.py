"""Headless Chromium for tests of pages, without access to other machines.

A test with the fixture `chromium`, which conftest.py imports, gets a selenium driver.
"""

import contextlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

PHONE, DESKTOP = (390, 844), (1280, 900)
_BROWSERS = ('chromium', 'chromium-browser', 'google-chrome')


@pytest.fixture(scope='session')
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator:
    """A selenium driver of Chromium; skips where it, or its driver, is not installed."""
    pytest.importorskip('selenium.webdriver', reason='selenium is not installed')
    if not all(programs()):
        pytest.skip('needs Chromium and chromedriver: apt-get install chromium-driver')
    with driven(tmp_path_factory.mktemp('chromium')) as driver:
        yield driver


def programs() -> tuple[str | None, str | None]:
    """The paths of Chromium and of chromedriver."""
    return next(filter(None, map(shutil.which, _BROWSERS)), None), shutil.which('chromedriver')


@contextlib.contextmanager
def driven(profile: Path) -> Iterator:
    """A selenium driver of Chromium, which keeps its files in the folder `profile`."""
    from selenium import webdriver

    browser, driver = programs()
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    for flag in (
        'headless', 'no-sandbox', 'disable-gpu', 'disable-quic', 'no-first-run',
        'disable-background-networking', 'disable-component-update', 'disable-sync',
        'disable-dev-shm-usage', f'user-data-dir={profile}',
    ):  # fmt: skip
        options.add_argument(f'--{flag}')
    options.set_capability('goog:loggingPrefs', {'browser': 'ALL', 'performance': 'ALL'})
    with webdriver.Chrome(options=options, service=webdriver.ChromeService(driver)) as opened:
        opened.set_page_load_timeout(60)
        yield opened


def open_page(
    driver, address: str | os.PathLike, size: tuple[int, int], scheme: str = 'light'
) -> None:
    """Opens a file or an address as in a window, or on a phone, of `size` CSS pixels.

    Args:
      size: width and height; below 600 a phone, which scales a page that does not fit.
      scheme: 'light' or 'dark'.
    """
    width, height = size
    driver.execute_cdp_cmd(
        'Emulation.setDeviceMetricsOverride',
        {'width': width, 'height': height, 'deviceScaleFactor': 1, 'mobile': width < 600},
    )
    driver.execute_cdp_cmd(
        'Emulation.setEmulatedMedia',
        {'features': [{'name': 'prefers-color-scheme', 'value': scheme}]},
    )
    for log in ('browser', 'performance'):
        driver.get_log(log)  # reading it empties it
    driver.get(address if isinstance(address, str) else Path(address).resolve().as_uri())


def requests(driver) -> list[str]:
    """URLs that the page has requested since `open_page`, in order, without data URIs."""
    events = [json.loads(entry['message'])['message'] for entry in driver.get_log('performance')]
    addresses = [
        event['params']['request']['url']
        for event in events
        if event['method'] == 'Network.requestWillBeSent'
    ]
    return [address for address in addresses if not address.startswith('data:')]


def messages(driver) -> list[str]:
    """Errors and warnings of the console since `open_page`."""
    return [
        entry['message']
        for entry in driver.get_log('browser')
        if entry['level'] in ('SEVERE', 'WARNING')
    ]
