"""How this suite speaks to remote services: slots, holds and turns by host, the polite HTTP session in `http`.

Nothing is imported here, so that a look at the holds (`slots`) does not load the HTTP library.
"""
