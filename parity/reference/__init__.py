"""The third voice: layers, losses and update rules in float64 NumPy, every convention a knob.

Imports numpy, `parity.errors` and `parity.spec` only.
"""
