"""ONNX graphs as models: run whole by onnxruntime."""
