"""Config -> network, and what a network costs."""
