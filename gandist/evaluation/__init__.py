"""See and measure: pictures drawn from a generator."""
