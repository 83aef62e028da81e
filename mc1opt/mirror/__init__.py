"""Copies the best trials to Weights & Biases.

observer  starts `mc1opt mirror` in a process of its own during a search or after a retraining
command   mirrors a stored study within time limits, and reports what was done
runs      converts stored records to W&B runs
ledger    which runs are written and which are uploaded
writer    writes and uploads runs with wandb
"""
