"""Is the latent sampled, and can gradients pass the sample?"""
