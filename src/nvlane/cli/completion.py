"""`nvlane completion`: the script by which a shell completes nvlane's verbs, options, machines and lanes."""

from __future__ import annotations

import click
from click.shell_completion import ShellComplete, get_completion_class

from nvlane.cli.output import Output, common


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@common
def completion(output: Output, shell: str) -> None:
    """Print the completion script of a shell.

    \b
    bash:  nvlane completion bash > /etc/bash_completion.d/nvlane
    zsh:   nvlane completion zsh > "${fpath[1]}/_nvlane"
    fish:  nvlane completion fish > ~/.config/fish/completions/nvlane.fish
    """
    from nvlane.cli.main import cli

    kind = get_completion_class(shell)
    if kind is None:
        raise click.UsageError(f"click has no completion for {shell}")
    script = kind(cli, {}, "nvlane", "_NVLANE_COMPLETE")
    # The base class's source(): that of bash starts a bash first, only to learn its version.
    text = ShellComplete.source(script)
    output.data({"shell": shell, "script": text}, lambda: text)
