"""ONNX graphs as models; onnxruntime computes the whole graph."""
