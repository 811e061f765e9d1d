"""Exact replay of policies on recorded traces, in any cost regime."""
