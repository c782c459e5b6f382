"""Conversations: rendered once by the chat template, encoded as one text, cut into turns."""
