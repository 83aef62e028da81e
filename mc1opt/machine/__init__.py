"""Devices, cores, memory and versions of this machine.

environment  versions, commit and CPU that a trial was trained with
memory       estimates the memory of a training
resources    CPUs and memory that this process may use
devices      device and precision
"""
