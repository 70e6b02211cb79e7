"""What is registered on the model, and what of it is used, owned and reloaded."""
