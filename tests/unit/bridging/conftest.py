from tests.support.real_model import encoder, vocabulary

__all__ = ["encoder", "vocabulary"]
