"""What the system tests stand on: a real motted, a client that checks every answer, and the host
seen from outside."""
