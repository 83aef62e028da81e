"""Measures the published models.

measure  trains presets over seeds and folds, and tests them
results  statistics over the trainings of a preset
report   presets as text and JSON: list, layers, results
"""
