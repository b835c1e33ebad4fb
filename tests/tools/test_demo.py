"""The page of tools.demo, as served by the command and seen in a browser."""

import asyncio
import io
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from PIL import Image
from starlette.responses import PlainTextResponse

import ssanet_jax
from ssanet_jax import data
from ssanet_jax.tools import demo as module
from ssanet_jax.tools.demo_guard import Guard
from ssanet_jax.trained.prediction import Predictor
from tests import browser
from tests.helpers import ROOT
from tests.host_processes import free_port

MAX_UPLOAD_MB = MAX_MEGAPIXELS = 1


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """The folder for temporary files of the command."""
    return tmp_path_factory.mktemp('demo')


@pytest.fixture(scope='module')
def address(digits_run, folder):
    """The address at which the command serves a run on the digits; at the end no file is left."""
    port, log = free_port(), folder / 'log'
    step = ssanet_jax.load(str(digits_run)).step
    ready = f'http://127.0.0.1:{port} shows {digits_run}, step {step}.'
    command = [
        sys.executable, '-m', 'ssanet_jax.tools.demo', f'--workdir={digits_run}',
        f'--port={port}', f'--max_upload_mb={MAX_UPLOAD_MB}', f'--max_megapixels={MAX_MEGAPIXELS}',
    ]  # fmt: skip
    flags = '--xla_backend_optimization_level=1'
    environment = {**os.environ, 'XLA_FLAGS': flags, 'TMPDIR': str(folder)}
    with log.open('w') as file:
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file)
    try:
        for _ in range(240):
            time.sleep(0.5)
            assert server.poll() is None, log.read_text()
            if ready in log.read_text():
                break
        assert ready in log.read_text()
        yield f'http://127.0.0.1:{port}'
        server.terminate()
        assert server.wait(60) == 0
        assert list(folder.iterdir()) == [log], 'files of the page are left'
    finally:
        server.kill()
        server.wait()


def listening(port):
    """The addresses on which this machine listens on a port, from the kernel."""
    rows = [line.split() for name in ('tcp', 'tcp6') for line in lines(f'/proc/net/{name}')]
    places = [row[1].split(':') for row in rows if row[3] == '0A']
    return {host for host, number in places if int(number, 16) == port}


def lines(path):
    return Path(path).read_text().splitlines()[1:] if Path(path).exists() else []


def test_it_listens_on_loopback_only(address):
    assert listening(int(address.rpartition(':')[2])) == {'0100007F'}


def test_a_file_above_the_limit_is_refused(address):
    for size, status in ((MAX_UPLOAD_MB * 10**6 + 1, 413), (1000, 200)):
        files = {'files': ('upload.png', bytes(size))}
        reply = httpx.post(f'{address}/gradio_api/upload', files=files, timeout=60)
        assert reply.status_code == status


@pytest.mark.parametrize(
    'headers',
    [
        {'Origin': 'http://evil.example'},
        {'Origin': 'null'},
        {'Origin': 'http://localhost'},
        {'Host': 'evil.example'},
        {'Host': 'evil.example', 'Origin': 'http://evil.example'},
    ],
    ids=str,
)
def test_other_pages_and_hosts_are_refused(address, headers):
    assert httpx.get(address, headers=headers, timeout=60).status_code == 403
    files = {'files': ('image.png', b'image')}
    url = f'{address}/gradio_api/upload'
    assert httpx.post(url, files=files, headers=headers, timeout=60).status_code == 403
    own = {'Origin': address}
    assert httpx.post(url, files=files, headers=own, timeout=60).status_code == 200


def refusal(*, max_bytes=1000, path='/upload', **headers):
    """The status with which the guard answers; 200 from the application behind it."""

    async def application(scope, receive, send):
        await PlainTextResponse('passed')(scope, receive, send)

    app = Guard(application, host='server.lan', max_bytes=max_bytes)
    fields = {name.replace('_', '-'): value for name, value in headers.items()}

    async def post():
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url='http://127.0.0.1') as client:
            return (await client.post(path, headers=fields)).status_code

    return asyncio.run(post())


@pytest.mark.parametrize(
    ('host', 'status'),
    [
        ('127.0.0.1:7860', 200), ('localhost:80', 200), ('[::1]:7860', 200), ('LOCALHOST', 200),
        ('192.168.1.5:7860', 200), ('server.lan:7860', 200), ('evil.example', 403), ('', 403),
        ('127.0.0.1.evil.example', 403), ('localhost.evil.example:7860', 403), ('[::1', 403),
        ('evil.example@127.0.0.1.', 403),
    ],
)  # fmt: skip
def test_names_of_other_hosts_are_refused(host, status):
    assert refusal(host=host) == status


@pytest.mark.parametrize(
    ('origin', 'status'),
    [
        ('http://127.0.0.1:7860', 200), ('https://127.0.0.1:7860', 200),
        ('http://127.0.0.1:7861', 403), ('http://localhost:7860', 403), ('null', 403),
        ('http://127.0.0.1:7860.evil.example', 403), ('file://', 403), ('', 403),
    ],
)  # fmt: skip
def test_requests_of_other_origins_are_refused(origin, status):
    assert refusal(host='127.0.0.1:7860', origin=origin) == status


def test_large_requests_and_those_of_unknown_length_are_refused():
    assert refusal(content_length='1000') == 200
    assert refusal(content_length='1001') == 413
    assert refusal(content_length='-1') == 413
    assert refusal(transfer_encoding='chunked') == 411


def show(driver, path, until):
    """Drops a file into the page, waits for a text, and returns the text of the page."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    def text(_=None):
        return driver.find_element(By.TAG_NAME, 'body').text

    wait = WebDriverWait(driver, 120)
    wait.until(lambda d: d.find_elements(By.CSS_SELECTOR, 'input[type=file]'))
    driver.find_element(By.CSS_SELECTOR, 'input[type=file]').send_keys(str(path))
    wait.until(lambda _: until in text())
    return text()


def test_an_image_shows_its_classes_and_maps_and_a_broken_one_an_error(
    address, chromium, digits_run, tmp_path, folder
):
    trained = ssanet_jax.load(str(digits_run))
    batch = next(data.eval_batches(trained.config, 'test'))
    image, path = batch['image'][0], tmp_path / 'digit.png'
    Image.fromarray(image).save(path)
    label = Predictor(trained).top(image[None])[0][0].name

    browser.open_page(chromium, address, browser.PHONE)
    text = show(chromium, path, 'Grad-CAM')
    assert re.search(rf'Most probable classes\s+{label}\s', text)
    assert all(f'stage {number}' in text for number in (1, 2, 3))
    requested = browser.requests(chromium)
    assert requested
    assert all(request.startswith((address, 'blob:')) for request in requested)
    assert chromium.execute_script('return document.documentElement.scrollWidth') <= 390

    broken = tmp_path / 'broken.jpg'
    broken.write_bytes(b'\xff\xd8\xff\xe0junk')
    browser.open_page(chromium, address, browser.DESKTOP)
    show(chromium, broken, 'It is truncated')
    alert = chromium.find_element('css selector', '[role=alert]').text  # in the page, not a toast
    assert alert == 'broken.jpg cannot be shown. It is truncated.'

    large = tmp_path / 'large.png'
    Image.new('L', (1000, 1001)).save(large)
    browser.open_page(chromium, address, browser.DESKTOP)
    assert 'dataset.max_image_pixels is 1,000,000' in show(chromium, large, 'It has 1,001,000 pix')
    kept = {path.name for path in folder.rglob('*')}
    assert not {'digit.png', 'broken.jpg', 'large.png'} & kept


def test_pixels_are_limited_by_the_page_and_by_the_run(digits_run):
    trained = ssanet_jax.load(str(digits_run))
    trained.config.dataset.max_image_pixels = 2000
    for limit, lower in ((900, 900), (10**6, 2000)):
        dataset = module.limit_pixels(trained, limit)
        files = []
        for sides in ((lower, 1), (lower + 1, 1)):
            file = io.BytesIO()
            Image.new('L', sides).save(file, 'png')
            files.append(file.getvalue())
        (batch,) = data.file_batches(files, dataset, 2)
        assert list(batch.bad) == [1]
        assert f'dataset.max_image_pixels is {lower:,}' in batch.bad[1]
    assert trained.config.dataset.max_image_pixels == 2000


@pytest.mark.parametrize(
    ('host', 'expected'),
    [('127.0.0.1', True), ('localhost', True), ('::1', True), ('0.0.0.0', False), ('a.b', False)],
)
def test_loopback_addresses_are_recognized(host, expected):
    assert module._is_loopback(host) is expected


@pytest.mark.slow
def test_a_port_that_is_taken_is_refused(digits_run):
    """Runs in a separate process, since Gradio leaves sockets open."""
    with socket.socket() as taken:
        taken.bind(('127.0.0.1', 0))
        taken.listen()
        port = taken.getsockname()[1]
        command = [
            sys.executable, '-m', 'ssanet_jax.tools.demo', f'--workdir={digits_run}',
            f'--port={port}',
        ]  # fmt: skip
        ended = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert ended.returncode == 2
    assert f'Cannot listen on --host=127.0.0.1 --port={port}' in ended.stderr.splitlines()[-1]
    assert 'Traceback' not in ended.stderr
