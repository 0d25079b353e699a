"""Plain wordings of the families' problems, and the questions that no family answers."""
