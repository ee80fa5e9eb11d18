"""`nvlane schema`: the JSON schema of the spec, or its reference for people."""

from __future__ import annotations

import json

import click

from nvlane.cli.output import Output, common


@click.command()
@click.option("--reference", is_flag=True, help="The page for people (Markdown) instead.")
@common
def schema(output: Output, reference: bool) -> None:
    """The JSON schema of the spec (draft 2020-12), for editors and other programs."""
    from nvlane.spec.reference import reference as page
    from nvlane.spec.schema import json_schema

    if reference:
        output.data({"reference": page()}, page)
    else:
        output.data(json_schema(), lambda: json.dumps(json_schema(), indent=2, ensure_ascii=False))
