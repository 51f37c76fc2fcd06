"""The lifetime of everything: start, restart, hot restart, signals, orphans, shutdown. Wires all parts."""
