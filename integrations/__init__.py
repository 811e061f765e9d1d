"""Where the controller meets real models: its runtime, signals, weights and frameworks."""
