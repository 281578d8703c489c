"""Where runs happen: the targets. Imports nothing of the other rooms."""
