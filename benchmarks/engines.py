"""What encodes texts: the reference first, then what workers run."""

ENGINES = ("sentence-transformers", "onnxruntime")
