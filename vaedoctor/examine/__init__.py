"""MEASURE: experiments on the model, each run once, lazily, and kept."""
