"""How is an open page told that something has changed?

A nudge carries no data: the page asks its view, which checks permissions and renders.
"""

from __future__ import annotations

import logging
from typing import Any

from channels.db import database_sync_to_async
from channels.generic.websocket import AsyncWebsocketConsumer

from cq import conf
from cq.hints import OVERVIEW_GROUP, TREES_GROUP, tree_group

logger = logging.getLogger(__name__)

# Codes of an application: servers refuse to send most others.
FORBIDDEN = 4403
TRY_AGAIN_LATER = 4503


class NudgeConsumer(AsyncWebsocketConsumer):
    """Passes on the nudges of one task tree, or those of the overview."""

    @property
    def channel_layer_alias(self) -> str:
        return conf.get().channel_layer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Serve one page until it leaves, or until the channel layer fails: then it comes again.

        A layer that is down would else be pages of traceback in the server's log for each try of
        each page.
        """
        self.has_left = False
        try:
            await super().__call__(scope, receive, send)
        except Exception as error:
            logger.warning("page without nudges: %s: %s", type(error).__name__, error)
            logger.debug("the whole of it", exc_info=True)
            if not self.has_left:
                await send({"type": "websocket.close", "code": TRY_AGAIN_LATER})

    async def connect(self) -> None:
        self.joined: tuple[str, ...] = ()
        if not await self._may_look():
            # Accepted, then closed: a page cannot read the code of a socket that was refused.
            await self.accept()
            await self.close(FORBIDDEN)
            return
        if self.channel_layer is not None:
            for group in self._wanted():
                await self.channel_layer.group_add(group, self.channel_name)
                self.joined = (*self.joined, group)
        # Last: a page that is told that it is connected misses no nudge from then on.
        await self.accept()

    async def disconnect(self, code: int) -> None:
        self.has_left = True
        for group in self.joined:
            await self.channel_layer.group_discard(group, self.channel_name)

    async def receive(self, text_data: str | None = None, bytes_data: bytes | None = None) -> None:
        """Pages only listen."""

    async def cq_nudge(self, message: dict[str, Any]) -> None:
        await self.send(text_data="nudge")

    def _wanted(self) -> tuple[str, ...]:
        root_id = self.scope["url_route"]["kwargs"].get("root_id")
        return (tree_group(root_id), TREES_GROUP) if root_id else (OVERVIEW_GROUP,)

    @database_sync_to_async
    def _may_look(self) -> bool:
        user = self.scope.get("user")
        return bool(user and user.is_active and user.is_staff and user.has_perm("cq.view_task"))
