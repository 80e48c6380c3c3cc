"""Files, progress and provenance: small helpers shared by all rooms."""
