"""What this machine is and allows: devices, cores, memory, versions.

environment  versions, commit and CPU that a trial was trained with
memory       the memory that a training takes, before it starts
resources    the CPUs and the memory that this process may use
devices      device and precision
"""
