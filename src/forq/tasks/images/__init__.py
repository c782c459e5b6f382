"""Images, with classes or captions: where they lie, their labels, and the numbers that a network takes."""
