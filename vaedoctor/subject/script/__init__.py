"""What the file does with its model: how it builds it, what it feeds, how its loop trains it."""
