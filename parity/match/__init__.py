"""Many trainings, and what follows from them: ablations, paired comparison, effective speed-up.

Reaches frameworks only through `parity.lockstep`; prints nothing.
"""
