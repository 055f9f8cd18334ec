"""Small models built from scratch."""
