"""Files that others write or read while we run: watching directories, publishing atomically."""
