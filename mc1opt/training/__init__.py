"""The training loop, and trained networks on disk.

loop          PyTorch's training loop: takes a training, yields one result per epoch
optim         optimizers, learning rate schedules, averaged weights
accuracy      accuracy and confusion matrix of a network on images
checkpoint    writes checkpoints and weights, and resumes from them
model_folder  writes, checks and loads a model in a folder
tensor_file   named tensors in a file, with a checksum
"""
