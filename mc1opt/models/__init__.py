"""Config -> network, and what it costs.

build      from an architecture to an initialised network
convnet    the convolutional network
mlp        the multilayer perceptron, and the linear layers that both share
inference  a trained network as it is exported
whitening  the filters of a whitened stem
cost       parameters and multiply-accumulates in closed form
"""
