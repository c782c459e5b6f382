"""Reports: what runs decided and how they scored, as one page and as TensorBoard's files; from their files alone.

Nothing here loads a model or reads a checkpoint: a run's folder says all of it, and may be elsewhere by now.
"""
