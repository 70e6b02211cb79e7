"""From a class to a model: constructor arguments said, read in the file, or made up."""
