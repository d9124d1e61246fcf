"""The explorer's server in a thread, for tests that need a real address."""

from __future__ import annotations

import threading
from typing import Any

import uvicorn

from specclip_search.atlas import Atlas
from specclip_search.web.app import make_app
from specclip_search.web.serve import listen
from specclip_search.web.settings import Settings


class Served:
    """An explorer that listens, in a thread of its own."""

    def __init__(self, atlas: Atlas, **settings: Any) -> None:
        chosen = Settings(port=0, offline=True, sql_workers=1, limit_rate=False, **settings)
        self.socket = listen(chosen)
        self.socket.listen()
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        self.server = uvicorn.Server(uvicorn.Config(make_app(atlas, chosen), log_level="warning", ws="none"))
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.socket]}, daemon=True)
        self.thread.start()

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(60)
        self.socket.close()
