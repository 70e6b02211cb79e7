"""Is the layer part of the model, and in the forward path?"""
