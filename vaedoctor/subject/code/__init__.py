"""What the user's file says, read as a syntax tree and evaluated without running it."""
