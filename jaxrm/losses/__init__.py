"""Pure losses: arrays in, per-example float32 arrays out."""
