"""`headstart doctor`: checks everything between this machine and a server."""
