"""gRPC streams of bytes over HTTP/2 in one event loop, without threads: what ADS needs of both, and no more."""
