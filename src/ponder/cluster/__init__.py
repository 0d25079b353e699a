"""Past one process: fleets that sample what a stage learns from, and Ray, which starts workers on other machines."""
