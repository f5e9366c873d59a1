"""The checks of `headstart doctor`: the way to a server and, if asked, the machine it runs on."""
