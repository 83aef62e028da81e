"""Config -> network, and what it costs.

layers     the walk through an architecture: each layer with its class, arguments, output shape and cost
cost       the sums of parameters and multiply-accumulates
build      from the layers to an initialised network
whitening  the filters of a whitened stem
inference  a trained network as it is exported
"""
