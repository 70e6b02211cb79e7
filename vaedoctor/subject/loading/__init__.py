"""From a path or a module's name to a loaded module, without what the file would do."""
