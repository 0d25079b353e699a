"""What the endpoints share: fields, bounds and shapes of their objects (wire), and how those are converted."""
