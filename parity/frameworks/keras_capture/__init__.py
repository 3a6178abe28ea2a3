"""How a Keras model becomes operations: by a call on symbols, which records what it reaches.

`recorder.py` follows the call, `layers.py` and `functions.py` say what is a word of
`parity.frameworks.kinds`, `leaves.py` holds the layers that a program runs, `exact.py` what
tensorflow rounds in float64.
"""
