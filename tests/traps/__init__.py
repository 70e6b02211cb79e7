"""Healthy models that a hasty rule takes for broken ones.

Each class is one; `loss` takes the entries of `batch()`, and its docstring says what is unusual.
"""
