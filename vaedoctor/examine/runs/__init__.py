"""One run of the step: recorded, repeated, changed at chosen operations."""
