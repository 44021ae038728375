"""The plan as Deployments, Services, a volume and an Ingress on a cluster that exists."""
