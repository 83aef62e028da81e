"""The published models, measured.

measure  the presets trained over seeds and folds, and tested
results  what the trainings of a preset have given
report   the presets as text and JSON: list, layers, results
"""
