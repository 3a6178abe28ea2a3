"""What is built and trained: conventions, models, losses, optimizers, schedules and recipes.

Imports numpy and `parity.errors` only.
"""
