"""The gRPC API: validates, converts, calls the store, converts back."""
