"""How hard the tests try: `./test.sh --soak` sets TICKWORK_SOAK, and the bounds below rise."""

from __future__ import annotations

import os

from hypothesis import settings

settings.register_profile("default", deadline=None)
settings.register_profile("soak", deadline=None, max_examples=20_000)
settings.load_profile("soak" if os.environ.get("TICKWORK_SOAK") else "default")
