"""What a submit costs its caller while the service is well, unwell and away, beside live."""
