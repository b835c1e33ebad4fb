"""Commands, one verb a file, run as `python -m ssanet_jax.tools.VERB`."""
