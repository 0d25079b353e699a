"""The only place where foreign code, or model output, is run: child processes with limits on time, memory and files."""
