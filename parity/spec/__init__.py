"""What is built and trained, framework-free: conventions, models, optimizers, schedules, losses and
recipes.

Imports numpy and `parity.errors` only.
"""
