"""Exports models to files for other programs, each verified against the original.

export           exports a model, verifies and records each file
source           what is exported: a trial's weights, or a model folder
formats          ONNX, `torch.export`, safetensors
parity           compares an exported file with the model
script           a model and its training as one PyTorch script
script_template  the template of these scripts, itself a training script
script_layers    its layers
"""
