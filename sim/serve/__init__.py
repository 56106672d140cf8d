"""Serving a stream of requests: a replica's loop, its policies, its memory, its prices."""
