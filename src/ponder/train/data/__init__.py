"""What is learned from: text and dialogues, drawn by (seed, step) and packed into rows."""
