"""Python imports this at its start where the folder is in PYTHONPATH."""

import no_network  # noqa: F401
