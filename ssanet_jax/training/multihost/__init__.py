"""Hosts of one run: how they meet, exchange values and end together."""
