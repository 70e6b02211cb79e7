"""Does the model run on another device, and in another precision?"""
