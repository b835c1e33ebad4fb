"""Paired comparisons of networks: variants x seeds, trained alike, and their statistics."""

from ssanet_jax.study.definition import Study, Variant, load_study

__all__ = ['Study', 'Variant', 'load_study']
