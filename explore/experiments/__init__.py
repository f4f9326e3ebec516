"""Many trainings: cells that are measured and kept on disk by content, run here, in several processes, in the background or on Ray."""
