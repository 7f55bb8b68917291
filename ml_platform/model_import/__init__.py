"""Models that were trained elsewhere, as versions of a model of the project: read, exported, judged, registered."""
