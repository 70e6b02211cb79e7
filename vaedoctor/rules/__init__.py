"""JUDGE: read measurements, compare, yield findings. One file a rule."""
