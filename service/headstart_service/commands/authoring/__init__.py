"""The commands of a pipeline's author, without a server: `dev` and `pipelines run`."""
