"""What executes runs: intake, one run's steps, their executors."""
