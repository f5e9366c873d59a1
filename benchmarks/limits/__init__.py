"""What large answers, strangers and idle connections cost a process, and everybody else."""
