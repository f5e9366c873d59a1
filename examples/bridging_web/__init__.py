"""The word-bridging game as a web application with a head start that can be switched off."""
