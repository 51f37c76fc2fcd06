"""Unix domain sockets: who answers on one, listening on one before its server is there, passing connections on."""
