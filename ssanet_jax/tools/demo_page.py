"""A web page that says what a trained network sees in an image, and where it looks."""

import os
from pathlib import Path
from typing import Any

os.environ.setdefault('GRADIO_ANALYTICS_ENABLED', 'False')

import gradio as gr
import numpy as np

from ssanet_jax import data
from ssanet_jax.trained.load import TrainedModel
from ssanet_jax.trained.prediction import Predictor
from ssanet_jax.trained.saliency import enlarge, legible_size, look
from ssanet_jax.trained.saliency_figures import overlay

_SHOWN = 320  # pixels of a side, at the least, of the pictures on the page


class Page:
    """The page, as a `gradio.Blocks` that `launch` serves.

    Args:
      run: from `ssanet_jax.load`.

    Images are decoded, resized and normalised as in evaluation, and refused above the limits of
    `config.dataset.max_image_bytes` and `max_image_pixels`.
    """

    def __init__(self, run: TrainedModel):
        self._run = run
        self._predictor = Predictor(run, batch_size=1)
        dataset, size = run.config.dataset, run.config.dataset.image_size
        title = f'{run.config.model.name} on {dataset.name}'
        # What is dropped is deleted after ten minutes, and at the end.
        forget = (600, 600)
        with gr.Blocks(title=title, analytics_enabled=False, delete_cache=forget) as self.blocks:
            gr.Markdown(
                f'# {title}\nStep {run.step:,}; {len(run.classes):,} classes. Drop an image: it is '
                f'seen at {size} x {size} pixels, as in evaluation.'
            )
            with gr.Row():
                # The file as it came: a gr.Image would decode it, and encode it again.
                file = gr.File(label='image, JPEG or PNG', file_types=['.jpg', '.jpeg', '.png'])
                classes = gr.Label(num_top_classes=5, label='likeliest classes')
            maps = gr.Gallery(
                label='where it looks', columns=3, object_fit='contain', height='auto', buttons=[]
            )
            note = gr.Markdown()
            file.change(self.answer, file, [classes, maps, note], api_visibility='private')

    def answer(self, path: str | None) -> tuple[dict[str, float] | None, list[Any], str]:
        """Probabilities by class, captioned pictures, and a sentence, of the image in a file."""
        if path is None:
            return None, [], ''
        dataset = self._run.config.dataset
        (batch,) = data.file_batches([Path(path)], dataset, 1)
        if batch.bad:
            raise gr.Error(batch.bad[0], print_exception=False)
        (top,) = self._predictor.top(batch.image)
        probabilities = {guess.name: guess.probability for guess in top}
        pictures, note = self._pictures(batch.image)
        return probabilities, [(_enlarged(picture), name) for name, picture in pictures], note

    def _pictures(self, image: np.ndarray) -> tuple[list[tuple[str, np.ndarray]], str]:
        """What the network sees, and the map of each stage over it, with what is to be said."""
        seen = ('as the network sees it', image[0])
        try:
            (found,) = look(self._run, image)
        except ValueError as error:  # Its attention has no maps.
            return [seen], str(error)
        size = legible_size(len(found.image))
        overlays = [
            (name, overlay(found.image, enlarge(values[None], size)[0]))
            for name, values in found.maps.items()
        ]
        return [seen, *overlays], (
            'A map is the mean of the gates of a stage: what the features of each pixel are '
            'multiplied by. Each is stretched from its own lowest value, dark, to its highest, '
            'bright. Grad-CAM, beside them, is of the likeliest class.'
        )


def _enlarged(image: np.ndarray) -> np.ndarray:
    """Each pixel as a square of several, where the image is small."""
    times = -(-_SHOWN // image.shape[0])
    return np.repeat(np.repeat(image, times, axis=0), times, axis=1)


def limited(run: TrainedModel, max_image_pixels: int) -> TrainedModel:
    """A run that decodes no image of more pixels, nor of more than it did."""
    config = run.config.copy_and_resolve_references()
    config.dataset.max_image_pixels = min(max_image_pixels, config.dataset.max_image_pixels)
    return run._replace(config=config)


def serve(
    run: TrainedModel, *, host: str, port: int, max_upload_bytes: int, max_image_pixels: int
) -> Page:
    """Serves the page of a run at http://host:port, from threads of its own.

    `page.blocks.block_thread()` waits for Ctrl-C.

    Args:
      run: from `ssanet_jax.load`.
      host: address to listen to; anyone who can reach it can use the page: there is no password.
      port: of that address.
      max_upload_bytes: larger files are refused.
      max_image_pixels: larger images are refused.

    Raises:
      OSError: the port is taken.
      ValueError: this machine cannot reach its own page, as behind a proxy.
    """
    page = Page(limited(run, max_image_pixels))
    page.blocks.queue(max_size=32, default_concurrency_limit=1).launch(
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
        # Fonts of the browser's own: Gradio's would be asked for at a server.
        theme=gr.themes.Default(
            font=['system-ui', 'sans-serif'], font_mono=['ui-monospace', 'monospace']
        ),
        css='.grid-wrap { max-height: none !important; }',  # All rows of the pictures.
    )
    return page
