"""Loads trained runs; predicts, explains, ablates and debugs them."""
