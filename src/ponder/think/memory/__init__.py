"""Memory outside the window: notes that a user's later questions recall, as quoted data with source and time."""
