"""Time generation in both frameworks on the same prompts, policy by policy; what is measured can be resumed."""
