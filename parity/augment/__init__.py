"""What is done to images in NumPy: augmentation, one file a family, drawn for a whole epoch by key.

Test images are not augmented; `views` builds those that evaluation may average over.
"""
