"""Numbers that are not finite or nearly so, and the step in other number types."""
