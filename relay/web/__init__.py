"""/metrics, /healthz, /readyz."""
