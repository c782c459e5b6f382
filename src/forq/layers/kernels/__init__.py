"""Kernels: ``y = matmul(x, weight, scales, bias, scratch)``. Scales are an input: a probe repacks nothing."""
