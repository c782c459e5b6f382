"""Kernels: ``y = matmul(x, weight, scales, bias, scratch)``. Scales are an input, so a probe repacks nothing."""
