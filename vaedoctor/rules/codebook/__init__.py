"""Is the codebook learned, and is it read in the right way?"""
