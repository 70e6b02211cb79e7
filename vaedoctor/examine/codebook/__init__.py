"""Vector quantisation: the table of codes and the terms that move it."""
