"""Learning from sampled answers: rollouts, rewards, advantages, and the gradient of a policy loss."""
