"""LoRA adapters: adding them to a model, and reading and writing PEFT's folders."""
