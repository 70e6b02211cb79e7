"""What enters the decoder?"""
