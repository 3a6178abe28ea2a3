"""`parity env`: what decides the numbers on this machine."""

import typer

from parity import runtime


def environment() -> None:
    """Print versions, processor and threads, as run records keep them."""
    record = runtime.environment()
    for package, version in record["versions"].items():
        typer.echo(f"{package:<12} {version}")
    typer.echo(f"{'cpu':<12} {record['cpu']}")
    typer.echo(f"{'threads':<12} {record['threads']}")
