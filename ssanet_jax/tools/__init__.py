"""Commands, one per file, run as `python -m ssanet_jax.tools.NAME`."""

from ssanet_jax import runtime

runtime.silence_tensorflow()  # before a command imports it
