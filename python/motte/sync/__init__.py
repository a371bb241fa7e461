"""The client for programs that wait."""
