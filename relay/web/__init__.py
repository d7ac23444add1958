"""What can be asked over HTTP: `app` has /metrics, /healthz and /readyz, `control` the admin socket."""
