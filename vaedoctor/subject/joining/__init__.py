"""Scripts without a class for their model: what their loop joins is put into one."""
