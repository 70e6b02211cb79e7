"""The samplers: their heads, their noise, what is made of the sample."""
