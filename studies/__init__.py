"""Study definitions: what to search. Plain Python, to copy and to edit.

cnn             convolutional networks; the published models 3 to 7 lie in it
cnn_large       wide ones in three stages, for a GPU or one long training
mlp             multilayer perceptrons; the published models 1 and 2 lie in it
published       deep networks for a GPU; the published models 8 to 11 lie in it
published_grid  the source's own search on published model 1: a grid of 12 points
"""
