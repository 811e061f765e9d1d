"""Records, features, training, costs and policies: numpy and the standard library, no framework."""
