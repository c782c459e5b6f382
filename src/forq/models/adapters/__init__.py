"""LoRA adapters: how they begin, and how PEFT stores them."""
