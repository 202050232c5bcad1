"""`circuits probe`: where its work has gone."""

from circuits.cli.app import app
from circuits.errors import CircuitsError


@app.command(hidden=True, context_settings={"ignore_unknown_options": True, "allow_extra_args": True})
def probe() -> None:
    """Moved: circuits behaviour scores minimal pairs and facts."""
    raise CircuitsError(
        "circuits probe is now circuits behaviour, with the same options and files: circuits behaviour --help says more"
    )
