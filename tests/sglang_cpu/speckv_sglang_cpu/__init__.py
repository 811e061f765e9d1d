"""Plugins that let SGLang speculate on a CPU, and the policies that tests force upon it."""
