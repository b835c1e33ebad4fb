"""Paired comparisons of networks: variants x seeds, trained alike, and their statistics."""
