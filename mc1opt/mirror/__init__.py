"""The mirror of the best trials in Weights & Biases.

observer  when a search or a retraining is mirrored: by `mc1opt mirror`, in a process of its own
command   mirroring a stored study within limits, and what is told of it
runs      from stored records to what W&B shall hold
ledger    the folder of mirrored runs: what is there, what was uploaded
writer    wandb: runs written, and uploaded
"""
