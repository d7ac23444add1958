"""From the queue to the next hop: `worker` (one per route), `upstream` (one per upstream), `attempt`, `settle`."""
