"""Trainings over configs, seeds and folds: stored as they end, tested once; no Optuna.

plan        configs x seeds x folds: the jobs, and the options of those who measure
final_test  the one look at the test images
trainings   trainings over seeds and folds, resumable
store       finished trainings in a file
"""
