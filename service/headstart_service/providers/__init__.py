"""What steps are given to work with: models, vocabularies, remote APIs. One kind per module.

Each satisfies, by its shape alone, a Protocol of the pipelines that use it, and translates the
errors of the library behind it.
"""
