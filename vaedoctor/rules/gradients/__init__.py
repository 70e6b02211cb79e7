"""Do the gradients arrive, finite and nonzero?"""
