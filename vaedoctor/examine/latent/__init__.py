"""What the latents carry: to the reconstruction, beside conditions, in evaluation mode."""
