"""From one checkpoint to another: quantize a float one, export to another format."""
