"""Measurements of this package itself, one module each."""
