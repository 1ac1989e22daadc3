"""Measures of methods on recorded traces."""
