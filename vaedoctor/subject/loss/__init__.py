"""Which loss trains the model, and what it is to be called with."""
