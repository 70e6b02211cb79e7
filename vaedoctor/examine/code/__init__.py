"""The user's code as it was met in a run: places, names, where an attribute is read."""
