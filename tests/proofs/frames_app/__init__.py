"""Notes that only their owner is to see: what the proof of frames serves."""
