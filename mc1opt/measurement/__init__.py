"""Trainings over configs, seeds and folds: stored as they end, tested once; no Optuna.

folds       how many stratified folds there can be
final_test  the one look at the test images
trainings   trainings over seeds and folds, resumable
store       finished trainings in a file
"""
