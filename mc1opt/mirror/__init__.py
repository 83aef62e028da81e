"""The mirror of the best trials in Weights & Biases.

observer      when a search or a retraining is mirrored in W&B
command       mirroring a stored study in W&B, and what is told of it
runs          from stored records to what W&B shall hold
process       the process that mirrors, and its limits
ledger        the folder of mirrored runs: what is there, what was uploaded
messages      what a mirrored run holds; what that process is told, and says
writer        the process itself: W&B's runs, written and uploaded
process_tree  ending a process with all that it started
"""
