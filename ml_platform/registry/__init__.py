"""Registry: tracking, versions, the promotion gate and the release store."""
