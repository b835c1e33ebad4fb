"""Publication of a trained run: a folder as the Hugging Face Hub wants it, and its upload.

docs/publish.md shows the commands; `ssanet_jax.load` reads the result.
"""
