"""The training loop: steps, optimizers, checkpoints and exact resume; what a stage starts from and leaves."""
