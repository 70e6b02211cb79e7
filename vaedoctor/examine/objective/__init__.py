"""The loss: its terms isolated, their weights, the distributions they compare."""
