"""One module for each kind of file that holds tensors: safetensors, GGUF, ONNX, torch.save, pipelines."""
