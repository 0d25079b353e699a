"""The strategies, one file each: the file's name is the strategy's, and the function of that name makes it."""
