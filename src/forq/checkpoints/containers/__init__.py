"""Containers of tensors, one module each: safetensors, GGUF, ONNX, torch.save, diffusers pipelines."""
