"""Guarded runs of the model: one pass, watched, and the state that it must leave as it was."""
