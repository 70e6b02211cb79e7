"""Do the shapes chain?"""
