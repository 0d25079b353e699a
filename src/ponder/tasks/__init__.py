"""Problems that are drawn, demonstrated and graded: families, reasoning-gym's datasets, and users' own tasks."""
