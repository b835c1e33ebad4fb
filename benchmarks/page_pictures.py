r"""Takes the pictures of docs/gallery.md of a report, the demo and a model card, in Chromium.

    make train
    python benchmarks/page_pictures.py --workdir=runs/digits --out=docs

The report and the demo are shown as on a desk and on a phone. Needs the extras `demo`, `hub` and
`test`, and Chromium (tests/install_browser.sh). The Hub renders a model card by its own style; here
it is that of a few lines.
"""

import argparse
import io
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from common import ROOT
from PIL import Image, ImageOps

import ssanet_jax
from ssanet_jax import data
from tests.browser import DESKTOP, PHONE, driven, open_page
from tests.host_processes import free_port

SIZES = {'desktop': (DESKTOP[0], 1200), 'phone': PHONE}
STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; max-width: 800px; margin: 2em auto; padding: 0 1em }
table { border-collapse: collapse } th, td { border: 1px solid #ddd; padding: .3em .8em }
pre { background: #f6f8fa; padding: 1em; overflow-x: auto } code { font-size: 85% }
"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--workdir', type=Path, required=True, help='a run of digits_ssa20')
    parser.add_argument('--out', type=Path, required=True, help='folder of the pictures')
    arguments = parser.parse_args()
    workdir, out = arguments.workdir.absolute(), arguments.out
    with tempfile.TemporaryDirectory() as folder, driven(Path(folder, 'profile')) as driver:
        driver.execute_cdp_cmd('Emulation.setScrollbarsHidden', {'hidden': True})
        for name, size in SIZES.items():
            open_page(driver, workdir / 'report.html', size)
            save(driver, out / f'report_{name}.jpg')
        show_demo(driver, workdir, out, Path(folder))
        open_page(driver, model_card(workdir, Path(folder)), SIZES['desktop'])
        save(driver, out / 'model_card.jpg')


def show_demo(driver: Any, workdir: Path, out: Path, folder: Path) -> None:
    """Drops a test image into the demo of a run."""
    from selenium.webdriver.support.ui import WebDriverWait

    trained, digit = ssanet_jax.load(str(workdir)), folder / 'digit.png'
    Image.fromarray(next(data.eval_batches(trained.config, 'test'))['image'][0]).save(digit)
    port = free_port()
    command = [sys.executable, '-m', 'ssanet_jax.tools.demo', f'--workdir={workdir}']
    server = subprocess.Popen(
        [*command, f'--port={port}'], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    file = 'input[type=file]'
    try:
        assert 'shows' in server.stdout.readline()
        for name, size in SIZES.items():
            open_page(driver, f'http://127.0.0.1:{port}', size)
            wait = WebDriverWait(driver, 120)
            wait.until(lambda d: d.find_elements('css selector', file))
            driver.find_element('css selector', file).send_keys(str(digit))
            wait.until(lambda d: 'Grad-CAM' in d.find_element('css selector', 'body').text)
            time.sleep(2)  # pictures fade in
            save(driver, out / f'demo_{name}.jpg')
    finally:
        server.terminate()
        server.wait()


def model_card(workdir: Path, folder: Path) -> Path:
    """A page of the model card of a run."""
    from markdown_it import MarkdownIt

    command = [sys.executable, '-m', 'ssanet_jax.tools.publish', f'--workdir={workdir}']
    published, page = folder / 'digits', folder / 'card.html'
    subprocess.run([*command, f'--out={published}', '--repo=USER/digits'], cwd=ROOT, check=True)
    _, _, card = (published / 'README.md').read_text().split('---\n', 2)
    html = MarkdownIt().enable('table').render(card)
    page.write_text(f'<!doctype html><meta charset=utf-8><style>{STYLE}</style>{html}')
    return page


def save(driver: Any, path: Path) -> None:
    """Saves what the window shows, in a thin frame, as a JPEG."""
    image = Image.open(io.BytesIO(driver.get_screenshot_as_png())).convert('RGB')
    image = ImageOps.expand(image, 2, 'silver')
    image.save(path, quality=85, subsampling=0, optimize=True)
    print(f'{path}: {image.width} x {image.height}, {path.stat().st_size:,} bytes')


if __name__ == '__main__':
    main()
