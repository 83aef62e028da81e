"""Shows searches and studies: plain lines, the live view, tables, pictures.

progress  counts, time left, plain lines
live      the live view of a terminal
tables    studies and trials as lines of text
pictures  learning curve, confusion matrix and misclassified images as PNG
"""
