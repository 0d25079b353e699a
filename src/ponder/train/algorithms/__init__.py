"""The training algorithms, one file each."""
