"""The one training loop, for one net or several: runs, their folders, and lockstep."""
