"""`python -m nvlane` is `nvlane`."""

from nvlane.cli.main import run

run()
