"""headstart: a pretrained network, a new head, and a record of exactly what came out of what."""
