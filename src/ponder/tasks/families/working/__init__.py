"""The arithmetic, searches and word lists that the demonstrations of several families share."""
