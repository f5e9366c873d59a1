"""The processes that Headstart is compared with; each prints `listening on PORT`."""
