"""Problems with their grades: the protocol of a task, the families, reasoning-gym, and tasks of your own."""
