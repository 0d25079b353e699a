"""`/v1/files` and `/v1/batches` as the official clients call them: the lines of a file become jobs."""
