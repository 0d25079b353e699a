"""The command line: one small file per verb. Nothing here loads torch until a verb runs."""
