"""Shapes and rows: batches of other sizes, broadcasting, what the loss looks at."""
