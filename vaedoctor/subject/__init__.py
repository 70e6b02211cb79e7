"""WHO: load, construct, find a batch and the objective."""
