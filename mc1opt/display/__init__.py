"""What people see of a search and of studies: lines, the live view, tables, pictures.

pictures  learning curve, confusions and misclassified images as PNG
progress  counts, the time left, plain lines
live      the live view of a terminal
tables    studies and trials as lines of text
"""
