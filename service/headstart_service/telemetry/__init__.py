"""What a process tells those who run it: figures when asked, and traces, if they are on."""
