"""The finalists over several seeds, the winner on all images, one look at the test images.

retrain     the finalists over several seeds, the winner on all images, one look at the test images
plan        what a retraining trains, and how long that takes
epochs      how many epochs fit into an hour
comparison  which configs are trained again, and which of them is the best
report      what a retraining has found, as JSON and as text
card        the model card
replay      a trial trained again: is its curve the same?
"""
