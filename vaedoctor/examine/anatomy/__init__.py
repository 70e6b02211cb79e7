"""Which recorded values are x, x_hat and the latents, and how to hold them fixed."""
