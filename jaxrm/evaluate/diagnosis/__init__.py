"""What a reward model listens to: each subject one module, all by scores but states and words."""
