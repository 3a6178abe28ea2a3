"""The only place of the toolkit that touches frameworks; NumPy arrays go in and come out."""
