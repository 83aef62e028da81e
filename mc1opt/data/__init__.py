"""CIFAR-10: files -> uint8 arrays -> batches."""
