"""From a config to a network, and what it costs.

layers     walks through an architecture: class, arguments, output shape and cost of each layer
widen      wider forms of an architecture
cost       sums of parameters and multiply-accumulates (MACs)
custom     networks that a function of a study file builds, and their cost
build      builds and initialises the network from its layers
whitening  the filters of a whitened stem
exported   a trained network with its normalisation and softmax, as it is exported
"""
