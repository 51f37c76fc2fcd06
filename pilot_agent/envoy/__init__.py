"""One Envoy process: its command line, its life, its admin interface, its output."""
