"""Small rules that any room may use: text, addresses, files, exit codes. Imports no room."""
