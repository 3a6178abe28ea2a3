"""The one training loop, for one net or several: training runs, their folders, and lockstep comparison."""
