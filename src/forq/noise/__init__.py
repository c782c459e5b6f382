"""Seeded noise: random bits that are a pure function of (seed, leaf name, element), and the laws made of them."""
