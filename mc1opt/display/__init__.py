"""Shows searches and studies: plain lines, the live view, tables, pictures.

progress  counts, time left, plain lines
live      the live view of a terminal
tables    studies and trials as lines of text
figures   a study's figures, for the dashboard and the report
svg       figures drawn without scripts
pictures  learning curve, confusion matrix and misclassified images as PNG
"""
