from nvlane.cli.main import run

run()
