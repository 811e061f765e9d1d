"""What a result of `speckv bench` says: a page with plots, and which settings to use."""
