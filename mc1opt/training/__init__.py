"""One training, and a trained network on disk.

model_folder  a model in a folder: writing, checking, loading
loop          PyTorch's training loop: training -> one result an epoch
optim         optimizers and learning rates
evaluate      accuracy and confusion matrix of a network
checkpoint    weights, and checkpoints from which a training resumes
tensor_file   named tensors in a file, with a checksum
"""
