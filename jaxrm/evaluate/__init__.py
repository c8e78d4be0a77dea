"""What a reward model is worth, with n and standard errors."""
