"""The native kernel: rows are dequantised by a little C, compiled once on this machine, and multiplied by torch.

Weights are those of the reference kernel bit for bit. What differs is speed: about 20 times as many weights a second,
so that a block of rows is made in the cache faster than a dense matrix is read from memory. Where the processor has
AMX, a second function multiplies in bfloat16, for :mod:`forq.layers.kernels.bfloat16`.
"""
