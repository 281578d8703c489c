"""What runs: job files, runs and their states, the command line."""
