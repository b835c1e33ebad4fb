r"""A web page for a trained network: drop an image, see its classes and where it looks.

    ssanet demo --workdir=runs/digits

Then open http://127.0.0.1:7860 in a browser. Ctrl-C or SIGTERM stops the server and deletes its
files. Only this machine can reach it, and no page of another site; from another machine, use
`ssh -L 7860:127.0.0.1:7860 HOST`. With --host=0.0.0.0 anyone on the network can use it: there is
no password.
"""

import atexit
import html
import ipaddress
import os
import signal
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from absl import flags

from ssanet_jax import runtime
from ssanet_jax.data.decoding.formats import SUFFIXES
from ssanet_jax.errors import ConfigError, one_line
from ssanet_jax.tools import cli, sources

if TYPE_CHECKING:
    import gradio
    from ml_collections import ConfigDict

    from ssanet_jax.trained.sources import AnyModel

_SHOWN = 320  # minimum side in pixels of the pictures on the page

_FORM_BYTES = 2**16  # of a request, beside the file
_KEPT_SECONDS = 60  # pictures, and uploads that were not read

# All rows of pictures, of up to three as the width allows; the label above the first, not over it.
_CSS = """
.grid-wrap { max-height: none !important; overflow: visible !important; padding-top: 2rem; }
.grid-container {
  grid-template-columns: repeat(auto-fill, minmax(max(9rem, 30%), 1fr)) !important;
}
"""

FLAGS = flags.FLAGS


def define_flags() -> None:
    sources.define_flags()
    flags.DEFINE_string('host', '127.0.0.1', 'Address to listen on.')
    flags.DEFINE_integer('port', 7860, 'Port to listen on.', lower_bound=1, upper_bound=65535)
    flags.DEFINE_integer('max_upload_mb', 16, 'Largest file to accept, in MB.', lower_bound=1)
    flags.DEFINE_integer(
        'max_megapixels', 50, 'Largest image to accept, in megapixels.', lower_bound=1
    )


def main() -> None:
    trained = sources.load()
    runtime.enable_compilation_cache()
    try:
        blocks = serve(
            trained,
            host=FLAGS.host,
            port=FLAGS.port,
            max_upload_bytes=FLAGS.max_upload_mb * 10**6,
            max_image_pixels=FLAGS.max_megapixels * 10**6,
        )
    except (OSError, ValueError) as error:
        raise ConfigError(
            f'Cannot listen on --host={FLAGS.host} --port={FLAGS.port}: {one_line(error)} Choose '
            'another host or port, or set NO_PROXY=127.0.0.1,localhost.'
        ) from error
    host = f'[{FLAGS.host}]' if ':' in FLAGS.host else FLAGS.host
    print(f'http://{host}:{FLAGS.port} shows {sources.described(trained)}.', flush=True)
    if not _is_loopback(FLAGS.host):
        print('Anyone who can reach this address can use the page: it has no password.')
    _wait_for_signal()
    blocks.close(verbose=False)


def _wait_for_signal() -> None:
    stopped = threading.Event()
    for name in ('SIGINT', 'SIGTERM', 'SIGHUP'):  # Windows has no SIGHUP
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), lambda *_: stopped.set())
    while not stopped.wait(1):  # Windows sees no signal in an endless wait.
        pass


def serve(
    trained: 'AnyModel', *, host: str, port: int, max_upload_bytes: int, max_image_pixels: int
) -> 'gradio.Blocks':
    """Serves a trained model's page at http://host:port from background threads.

    `block_thread()` of the result waits for Ctrl-C. An uploaded file is deleted as soon as it is
    read, and all files of the page when Python exits.

    Args:
      trained: from `ssanet_jax.load`.
      host: address to listen on; anyone who can reach it can use the page: there is no password.
      port: of that address.
      max_upload_bytes: larger files are refused.
      max_image_pixels: larger images are refused.

    Raises:
      ModuleNotFoundError: gradio is not installed.
      OSError: the port is taken.
      ValueError: the page cannot be reached from this machine, for example through a proxy.
    """
    os.environ.setdefault('GRADIO_ANALYTICS_ENABLED', 'False')  # read on import
    uploads = tempfile.TemporaryDirectory(prefix='ssanet_demo_', ignore_cleanup_errors=True)
    atexit.register(uploads.cleanup)
    os.environ['GRADIO_TEMP_DIR'] = uploads.name  # read on import too
    import gradio as gr
    from starlette.middleware import Middleware

    from ssanet_jax.tools.demo_guard import Guard

    blocks = _page(trained, limit_pixels(trained, max_image_pixels))
    guard = Middleware(Guard, host=host, max_bytes=max_upload_bytes + _FORM_BYTES)
    blocks.queue(max_size=32, default_concurrency_limit=1).launch(
        server_name=host,
        server_port=port,
        share=False,
        quiet=True,
        ssr_mode=False,
        footer_links=[],
        run_history=False,
        enable_monitoring=False,
        mcp_server=False,
        allowed_paths=[],
        max_file_size=max_upload_bytes,
        prevent_thread_lock=True,
        app_kwargs={'middleware': [guard]},
        # The browser's own fonts: Gradio would fetch its fonts from a server.
        theme=gr.themes.Default(
            font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace']
        ),
        css=_CSS,
    )
    return blocks


def limit_pixels(trained: 'AnyModel', max_image_pixels: int) -> 'ConfigDict':
    """The model's `dataset` with at most `max_image_pixels` as its limit on image pixels."""
    dataset = trained.dataset.copy_and_resolve_references()
    dataset.max_image_pixels = min(max_image_pixels, dataset.max_image_pixels)
    return dataset


def _page(trained: 'AnyModel', dataset: 'ConfigDict') -> 'gradio.Blocks':
    """The page. Images are decoded, resized and normalized as in evaluation."""
    import gradio as gr

    from ssanet_jax import data
    from ssanet_jax.trained.prediction import Predictor

    predictor, size = Predictor(trained, batch_size=1), trained.preprocessing.size

    def answer(path: str | None) -> tuple[dict[str, float] | None, list[tuple], str]:
        """Probabilities by class, captioned pictures and a note, in HTML, on an uploaded file."""
        if path is None:
            return None, [], ''
        try:
            (batch,) = data.file_batches([Path(path)], dataset, 1)
        finally:
            Path(path).unlink(missing_ok=True)
        if batch.bad:  # stays on the page, where a gr.Error would vanish
            reason = html.escape(f'{Path(path).name} cannot be shown. {batch.bad[0]}')
            return None, [], f'<p role="alert"><strong>{reason}</strong></p>'
        (top,) = predictor.top(batch.image)
        pictures, note = _pictures(trained, batch.image)
        probabilities = {guess.name: guess.probability for guess in top}
        return probabilities, pictures, f'<p>{html.escape(note)}</p>'

    kept = (_KEPT_SECONDS, _KEPT_SECONDS)
    with gr.Blocks(title=trained.name, analytics_enabled=False, delete_cache=kept) as blocks:
        gr.Markdown(
            f'# {trained.name}\n{len(trained.classes):,} classes. Drop an image: the network sees '
            f'it at {size} x {size} pixels, as in evaluation.'
        )
        with gr.Row():
            # The file as uploaded: gr.Image would decode and re-encode it.
            file = gr.File(label='Image', file_types=sorted(SUFFIXES))
            classes = gr.Label(num_top_classes=5, label='Most probable classes')
        note = gr.HTML()
        maps = gr.Gallery(
            label='Where the network looks', object_fit='contain', height='auto', buttons=[]
        )
        file.change(answer, file, [classes, maps, note], api_visibility='private')
    return blocks


def _pictures(trained: 'AnyModel', image: np.ndarray) -> tuple[list[tuple[np.ndarray, str]], str]:
    """The image [1, s, s, 3] as the network sees it, its saliency maps, and a note on them."""
    from ssanet_jax.trained.saliency import enlarge, explain, legible_size
    from ssanet_jax.trained.saliency_display import overlay

    pictures = [(_magnify(image[0]), 'input')]
    try:
        (saliency,) = explain(trained, image)
    except ValueError as error:  # no spatial gate
        return pictures, str(error)
    size = legible_size(image.shape[1])
    for name, values in saliency.maps.items():
        laid = overlay(saliency.image, enlarge(values, size))
        pictures.append((_magnify(laid), name.replace('stage', 'stage ')))
    return pictures, (
        "A stage's map is the mean of its gates, which multiply the features of each pixel. Each "
        'map is scaled from its own minimum, dark, to its maximum, bright. Grad-CAM is that of the '
        'most probable class.'
    )


def _magnify(image: np.ndarray) -> np.ndarray:
    """Repeats the pixels of a small image."""
    times = -(-_SHOWN // image.shape[0])
    return np.repeat(np.repeat(image, times, axis=0), times, axis=1)


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == 'localhost'


if __name__ == '__main__':
    cli.run(main, define_flags)
