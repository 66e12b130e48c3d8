"""The world: the smallest thing that runs. Standard library and pydantic only."""
