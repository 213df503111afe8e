"""The driver's role: adapters and their life, registration of rings, the engine."""
