"""The plan as Deployments, Services, a volume and an Ingress on an existing cluster."""
