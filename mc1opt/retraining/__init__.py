"""`mc1opt retrain`: from the finalists of a search to a tested model; and replays of trials.

retrain     trains finalists over seeds, the winner on all images, and tests it once
plan        what a retraining trains, and its expected cost
size        how wide and how long candidates train within a budget
comparison  chooses the candidates, and the best of them
report      the result as JSON and as text
model_card  the model card
replay      trains a trial again and compares the curves
"""
