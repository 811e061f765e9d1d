"""The paper, reproduced from its released data and examined."""
