"""Which gradients arrive, how large they are, and what cuts them off."""
