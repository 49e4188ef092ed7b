"""Checks of `deploy/kubernetes` without a cluster: what the overlays build, against schemas and rules of our own.

    python -m scripts.manifests                     every overlay and example
    python -m scripts.manifests deploy/kubernetes/overlays/gpu

`render` builds, `schemas` holds each object to its kind's fields, `pods` and `references` are the rules; each finds
problems, one line each, and raises nothing for a manifest that is wrong.
"""
