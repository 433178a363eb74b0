"""The one way this suite speaks HTTP to remote services.

Import from the submodules: `session` (Upstream, Answer and what it raises), `policy`, `guard`, `slots`. Nothing is
imported here, so that a look at the holds (`slots`) does not load the HTTP library.
"""
