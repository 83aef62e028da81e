"""A finished model: opened, run on images, evaluated.

export_record  the files that mc1opt exported, by SHA-256
open_model     opening a model with the runtime of its format
predict        the most probable classes of image files
evaluate       a model on the test images: accuracy, calibration, confusions
"""
