"""What a build writes: its dataset, and the same rows as other trainers read them."""
