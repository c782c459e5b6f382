"""Oracles: who answers the losses of a step's probes."""
