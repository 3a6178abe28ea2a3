"""Comparison of arrays, states and traces: arrays in, findings out.

Imports numpy and `parity.errors` only.
"""
