"""Finished models: opened, run on images, evaluated.

export_record  the SHA-256 of all files that mc1opt has exported
open_model     opens a model with the runtime of its format
predict        the most probable classes of image files
retrained      what a study's retraining has found
evaluate       accuracy, calibration and confusions on the test images
"""
