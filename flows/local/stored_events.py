"""Prefect's message broker in memory, of whose events the server stores those of flow runs alone.

Named to a server by PREFECT_SERVER_EVENTS_MESSAGING_BROKER (flows/local/server_settings.py). Prefect tells everything by
events: three a task run, one an artifact with all of its content, one every 30 seconds that a run is alive. Every service gets
all of them: task runs are recorded, automations fire, `--watch` watches. But stored, they are two thirds of the database, and
say again what its tables of task runs and artifacts hold.
"""

from typing import Any

from prefect.server.utilities.messaging import Message, MessageHandler, memory
from prefect.server.utilities.messaging.memory import Publisher, break_topic, ephemeral_subscription

__all__ = ["Consumer", "Publisher", "break_topic", "ephemeral_subscription"]

NOT_STORED = ("prefect.task-run.", "prefect.artifact", "prefect.flow-run.heartbeat")  # beginnings of events' names
PERSISTER = "event-persister"  # the group that Prefect's service asks for


class Consumer(memory.Consumer):
    """As Prefect's own, but the service that stores events is not handed those of NOT_STORED."""

    def __init__(self, topic: str, group: str = "", **options: Any) -> None:
        super().__init__(topic, **options)
        self._stores = group == PERSISTER

    async def run(self, handler: MessageHandler) -> None:
        """Hand messages to `handler` until stopped."""
        await super().run(_of_those_stored(handler) if self._stores else handler)


def _of_those_stored(handler: MessageHandler) -> MessageHandler:
    async def handle(message: Message) -> None:
        event = (message.attributes or {}).get("event", "")
        if not event.startswith(NOT_STORED):
            await handler(message)

    return handle
