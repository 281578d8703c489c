"""Kubernetes, by the KubeRay operator: a run as a RayJob."""
