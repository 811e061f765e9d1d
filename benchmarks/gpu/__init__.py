"""What only a machine with a GPU can tell: exactness, synchronisations, costs, and the replay under them."""
