"""The plan as AWS resources: ECS, EFS, an Auto Scaling group, a load balancer."""
