"""Jobs: work that is handed over, waits in the store, runs as background responses, and is looked at later."""
