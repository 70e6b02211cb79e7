"""The example input: given, the user's own, or made up by experiment."""
