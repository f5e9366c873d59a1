"""How an extra is installed, for messages about packages that are missing."""


def install(extra: str) -> str:
    """Return the command that installs an extra. No package index has Headstart."""
    return f"pip install '.[{extra}]' in Headstart's clone"
