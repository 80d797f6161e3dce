"""The parts of ring.py: what is played, and how it is counted."""
