"""One training, and a trained network on disk.

model_folder  a model in a folder: writing, checking, loading
loop          PyTorch's training loop: a training in, a result an epoch out
optim         optimizers, learning rates, averaged weights
evaluate      accuracy of a network on images
checkpoint    weights, and the checkpoint from which a training goes on
tensor_file   named tensors in a file, with a checksum
"""
