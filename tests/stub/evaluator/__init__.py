"""A stand-in for the evaluator that speaks its command line and trains nothing.

It goes where the real one would: a test puts this folder first in PYTHONPATH.
"""
