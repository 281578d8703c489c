"""`python -m jobs`: the `perceive` command, where only its packages are, not its script."""

from jobs.cli import main

main(prog_name="perceive")
