"""The command line, `speckv`: one file for each command."""
