"""Which websockets does the console open?"""

from __future__ import annotations

from django.urls import path

from .consumers import NudgeConsumer

websocket_urlpatterns = [
    path("ws/cq/overview/", NudgeConsumer.as_asgi()),
    path("ws/cq/tree/<uuid:root_id>/", NudgeConsumer.as_asgi()),
]
