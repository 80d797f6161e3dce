"""The method, torch only: the round, its losses and penalties, the average; read it with the papers beside you."""
