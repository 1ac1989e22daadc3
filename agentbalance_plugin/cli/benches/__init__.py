"""Measurements of this package itself, one module each."""

THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
"""What limits the threads of numpy and torch, read when they load."""
