"""Moves to an accelerator, virtual and real, and what stays behind."""
