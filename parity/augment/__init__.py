"""Augmentation of uint8 images in NumPy: one file a family, drawn for a whole epoch by key."""
