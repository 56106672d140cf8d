"""Serving a stream of requests on replicas: schedulers, KV cache, prices of steps and routing.

A trace or a distribution of requests, a deployment and an engine's settings come in.
A record of each request, the account of each device and their summary go out.
"""
