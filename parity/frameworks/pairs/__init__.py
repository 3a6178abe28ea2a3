"""Models of a plan, written for each framework as its users write them.

`plan` knows no framework; `torch_side` and `keras_side` each know one, and neither the other.
"""
