"""Write a model of transformers as a GGUF file: header, tensors and vocabulary."""
