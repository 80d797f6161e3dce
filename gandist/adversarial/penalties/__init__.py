"""What a player pays beside its adversarial loss: one file for each family, and the table of all of them."""
