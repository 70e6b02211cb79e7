"""TELL: every format is a function of the report."""
