"""What a training run needs of each GPU's memory, by arithmetic: before anything is loaded."""
