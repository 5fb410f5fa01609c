"""A policy in this process, without a network: the same checks, the same `Policy` and the same models as a service."""

from __future__ import annotations

from time import monotonic_ns

from wavserve.app.edges import edge_limits
from wavserve.app.service import Service, assemble
from wavserve.app.settings import Settings
from wavserve.clients.loop_thread import LoopThread
from wavserve.core.messages import ActionChunk, Observation, PolicyInfo
from wavserve.edge.frontend import Arrival, Frontend


class InProcessPolicy:
    """Answers observations as `PlanClient` does. Its models are on a thread of its own; any thread may use it."""

    def __init__(self, settings: Settings) -> None:
        """Loads and warms the models in this process. Raises what `app.service.assemble` and the warm-up raise."""
        backend = settings.backend.model_copy(update={"kind": "local"})
        self._service: Service | None = None
        self._thread = LoopThread("wavserve-policy")
        try:
            service = self._service = self._thread.run(assemble(settings.model_copy(update={"backend": backend})))
            self._thread.run(service.policy.warm_up())
        except BaseException:
            self.close()
            raise
        self._frontend = Frontend(service.policy, edge_limits(settings.limits))

    def plan(self, observation: Observation) -> ActionChunk:
        """As `PlanClient.plan`."""
        arrival = Arrival(monotonic_ns(), sender="in-process")
        return self._thread.run(self._frontend.plan(observation, arrival))

    def end(self, session_id: str) -> None:
        """As `PlanClient.end`."""
        self._thread.run(self._frontend.end_session(session_id))

    def policy(self) -> PolicyInfo:
        """As `PlanClient.policy`."""
        return self._frontend.info()

    def close(self) -> None:
        """Ends the plans under way and frees the models. Harmless when called again."""
        self._thread.end(self._end)

    async def _end(self) -> None:
        if self._service is not None:
            try:
                await self._service.policy.drain(0.0)
            finally:
                await self._service.close()
