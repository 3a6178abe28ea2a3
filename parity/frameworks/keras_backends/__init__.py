"""Training and inference of a Keras model, once per backend.

`engine.py` says what each one offers.
"""
