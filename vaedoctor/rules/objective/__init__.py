"""Is the loss a reconstruction plus the KL of what is sampled?"""
