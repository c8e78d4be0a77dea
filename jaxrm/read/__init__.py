"""Whatever can be read off a model's states, for any responses."""
