"""A finished model asked: opened, looked at, evaluated.

export_record  the files that mc1opt exported, by SHA-256
open_model     opening a model with the program that runs it
predict        what a model sees in image files
evaluate       a model on the test images: accuracy, calibration, confusions
"""
