"""A model as files that other programs read, each proven to be the same model.

export           a model to files, each checked and recorded
source           what is exported: a trial's weights, or a model folder
formats          ONNX, `torch.export`, safetensors
check            whether an exported file is the same model
script           a model and its training as one PyTorch script
script_template  a training script, from which others are made
"""
