"""What single parts of the product cost: the loop, attaching, a server's states."""
