"""Do the numbers stay finite, and how far are they from where they would not?"""
