"""Trainings of configs over seeds and folds: stored as they end, tested once. Without Optuna.

plan        configs x seeds x folds as jobs, and the options shared by those who measure
trainings   trains what a store lacks, and resumes
store       finished trainings in a file
final_test  evaluates finished trainings on the test images, once
"""
