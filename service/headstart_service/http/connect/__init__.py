"""The Connect protocol: the API over HTTP with JSON or protobuf, for curl and browsers too.

https://connectrpc.com/docs/protocol defines it. Here are its three forms: unary calls by POST,
reads by GET, and streams of responses. Messages travel uncompressed.
"""
