"""Checkpoint formats, one file a format; `table.FORMATS` lists them by suffix."""
