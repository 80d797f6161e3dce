"""The networks, torch only: layers, one file per architecture; the resolution is an argument."""
