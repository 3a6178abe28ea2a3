"""Reports: run and lockstep records as terminal tables and as one self-contained HTML page."""
