"""`memorywall serve`: a serving run from its flags."""

from __future__ import annotations

from typing import Annotated

import typer

from sim.cli.completion import models
from sim.cli.options import flags_of, record_of


def serve(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(autocompletion=models, help="A model as for `run`, or the TOML of serving"),
    ],
) -> None:
    """Serve a stream of requests, and account for the time of each and of every device."""
    from sim.cli.run import document_of
    from sim.inputs.documents import convert
    from sim.serve.config import Serving
    from sim.serve.session import ServeOutput, serve_scenario

    document = document_of("serve", model, flags_of(context, Serving), Serving)
    serving = convert(document, Serving, "command line")
    served = serve_scenario(serving, record_of(context, ServeOutput), [model])
    if served.interrupted:  # no script may take a part for the whole
        raise typer.Exit(130)
