"""The replicas: discovery, readiness and ejection. Each replica's /health is probed about every second."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from time import monotonic

from image.gateway.backends import Address
from image.gateway.discovery import Discovery, DiscoveryError
from image.gateway.settings import Settings
from image.gateway.telemetry import Telemetry
from image.gateway.upstream import Pool, UpstreamError

# A healthy engine under heavy load may answer a probe late; a refused or reset connection means that it is down.
_SLOW_PROBES_ALLOWED = 2
_LONGEST_EJECTION_SECONDS = 300.0
_SAME_BREAKDOWN_SECONDS = 1.0


class Replica:
    """One engine server. In rotation while `ready` and neither `leaving` nor `ejected`."""

    def __init__(self, address: Address, connect_timeout_seconds: float) -> None:
        self.name = f"{address[0]}:{address[1]}"
        self.pool = Pool(address, connect_timeout_seconds)
        self.ready = False
        self.leaving = False
        self.outstanding = 0
        self.hash_key = self.name.encode()[-64:]
        self.failures = 0  # consecutive failed requests
        self.ejections = 0
        self.ejected = False
        self.on_trial = False
        self.version: str | None = None
        self.slow_probes = 0
        self.probed = False  # since it was discovered, or since a request to it failed
        self.probe_soon = asyncio.Event()
        self._broke_at = -_SAME_BREAKDOWN_SECONDS
        self._ran_when_it_broke = 0

    def ran_alone(self) -> bool:
        """Whether the calling request was the only one in flight when the replica failed. After a failure, every request
        in flight calls this in turn, each after the ones before it were released.
        """
        now = monotonic()
        if now - self._broke_at >= _SAME_BREAKDOWN_SECONDS:
            self._broke_at, self._ran_when_it_broke = now, 0
        self._ran_when_it_broke = max(self._ran_when_it_broke, self.outstanding)
        return self._ran_when_it_broke == 1


class Fleet:
    """All discovered replicas."""

    def __init__(
        self, discovery: Discovery, settings: Settings, telemetry: Telemetry, changed: Callable[[], None]
    ) -> None:
        """`changed` is called when the rotation or `settled` has changed."""
        self._discovery = discovery
        self._settings = settings
        self._telemetry = telemetry
        self._changed = changed
        self._known: dict[Address, Replica] = {}
        self._probes: dict[Address, asyncio.Task[None]] = {}
        self._discovery_failed = False
        self._discovered = False
        self.rotation: list[Replica] = []
        """The replicas that can be sent requests now."""

    @property
    def known(self) -> int:
        """Number of discovered replicas, ready or not."""
        return len(self._known)

    @property
    def settled(self) -> bool:
        """Whether discovery was read and every replica has answered or failed its latest probe. Until then, an empty
        rotation does not mean that no engine is running.
        """
        return self._discovered and all(replica.probed for replica in self._known.values())

    @property
    def engine_version(self) -> str | None:
        """The version that a ready replica last reported."""
        return next((r.version for r in self.rotation if r.version), None)

    async def run(self) -> None:
        """Follow discovery until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                while True:
                    await self._reconcile(group)
                    await asyncio.sleep(self._settings.discovery_seconds)
        finally:
            for replica in self._known.values():
                replica.pool.close()

    def suspect(self, replica: Replica) -> None:
        """A request could not reach the replica: remove it from rotation and probe it now."""
        replica.probed = False
        self._set_ready(replica, False, "a request failed")
        replica.probe_soon.set()

    async def dead(self, replica: Replica) -> bool:
        """Whether /health reports now that the replica is down; if so, it leaves the rotation. An engine whose core has
        died answers every request with 500 until its process exits.
        """
        try:
            status, _ = await self._get(replica, b"/health")
            reason = "" if status == 200 else f"its /health answered {status}"
        except UpstreamError as error:
            reason = str(error)
        except TimeoutError:
            return False
        if reason:
            self._set_ready(replica, False, reason)
        return bool(reason)

    def succeeded(self, replica: Replica) -> None:
        """A request to the replica succeeded."""
        replica.failures = 0
        if replica.on_trial:
            replica.on_trial = False
            replica.ejections = 0
            self._telemetry.event("replica_recovered", replica=replica.name)
            self._changed()

    def failed(self, replica: Replica) -> None:
        """A request to the replica failed or returned a 5xx. Too many in a row, or one while on trial, eject it."""
        replica.failures += 1
        if replica.ejected or not (replica.on_trial or replica.failures >= self._settings.eject_after_failures):
            return
        # Eject at most half of the replicas that answer their probes: an unhealthy replica is better than none.
        ready = [r for r in self._known.values() if r.ready or r is replica]
        if 2 * (1 + sum(r.ejected for r in ready)) > len(ready):
            replica.on_trial = False
            return
        seconds = min(self._settings.eject_seconds * 2**replica.ejections, _LONGEST_EJECTION_SECONDS)
        replica.ejections += 1
        replica.ejected, replica.on_trial = True, False
        self._telemetry.metrics.ejections.inc()
        self._telemetry.event(
            "replica_ejected", level="error", replica=replica.name, failures=replica.failures, seconds=seconds
        )
        asyncio.get_running_loop().call_later(seconds, self._try_again, replica)
        self._rebuild()

    def _try_again(self, replica: Replica) -> None:
        """Half-open: one request at a time, until one succeeds."""
        replica.ejected, replica.on_trial = False, True
        self._rebuild()

    async def _reconcile(self, group: asyncio.TaskGroup) -> None:
        try:
            found = await self._discovery.addresses()
        except DiscoveryError as error:
            if not self._discovery_failed:
                self._telemetry.event("discovery_failed", level="error", error=str(error))
            self._discovery_failed = True
            self._note_discovered()
            return
        self._discovery_failed = False
        for address in self._known.keys() - found:
            self._forget(address)
        for address in found - self._known.keys():
            replica = Replica(address, self._settings.connect_timeout_seconds)
            self._known[address] = replica
            self._telemetry.event("replica_found", replica=replica.name)
            self._probes[address] = group.create_task(self._watch(replica))
        self._note_discovered()

    def _note_discovered(self) -> None:
        if not self._discovered:
            self._discovered = True
            self._changed()

    def _forget(self, address: Address) -> None:
        """Remove a replica that discovery no longer returns. Its running requests continue."""
        replica = self._known.pop(address)
        replica.leaving = True
        self._probes.pop(address).cancel()
        self._set_ready(replica, False, "no longer discovered")
        if not replica.probed:
            self._changed()
        replica.pool.close()

    async def _watch(self, replica: Replica) -> None:
        while True:
            replica.probe_soon.clear()
            reason = await self._probe(replica)
            if reason is None and not replica.ready:
                replica.version = await self._ask_version(replica)
            newly_probed, replica.probed = not replica.probed, True
            self._set_ready(replica, reason is None, reason or "healthy")
            if newly_probed:
                self._changed()
            try:
                async with asyncio.timeout(self._settings.probe_seconds):
                    await replica.probe_soon.wait()
            except TimeoutError:
                continue
            # Pause, so that a replica that answers probes but fails requests is not probed in a tight loop.
            await asyncio.sleep(self._settings.probe_seconds / 4)

    async def _probe(self, replica: Replica) -> str | None:
        """None if the replica is healthy, otherwise the reason."""
        try:
            status, _ = await self._get(replica, b"/health")
        except UpstreamError as error:
            return str(error)
        except TimeoutError:
            replica.slow_probes += 1
            if replica.ready and replica.slow_probes <= _SLOW_PROBES_ALLOWED:
                return None
            return f"no answer to a probe within {self._settings.probe_timeout_seconds:g} s"
        replica.slow_probes = 0
        return None if status == 200 else f"its /health answered {status}"

    async def _ask_version(self, replica: Replica) -> str | None:
        try:
            status, body = await self._get(replica, b"/version")
            version = json.loads(body)["version"] if status == 200 else None
        except (UpstreamError, TimeoutError, ValueError, KeyError, TypeError):
            return None  # not every engine reports a version
        return version[:64] if isinstance(version, str) else None

    async def _get(self, replica: Replica, path: bytes) -> tuple[int, bytes]:
        # Always a new connection, because the probe must also show that the replica accepts connections.
        head = b"GET %b HTTP/1.1\r\nhost: %b\r\nconnection: close\r\n\r\n" % (path, replica.pool.host_header)
        async with asyncio.timeout(self._settings.probe_timeout_seconds):
            connection = await replica.pool.connect()
            try:
                connection.send(head, b"")
                await connection.head()
                body = b""
                while len(body) < 65536 and (part := await connection.read()):
                    body += part
                return connection.status, body
            finally:
                connection.close()

    def _set_ready(self, replica: Replica, ready: bool, reason: str) -> None:
        if replica.leaving:
            ready = False
        if replica.ready == ready:
            return
        replica.ready = ready
        self._telemetry.event("replica_ready" if ready else "replica_not_ready", replica=replica.name, reason=reason)
        self._rebuild()

    def _rebuild(self) -> None:
        # A new list, so that iterations over the old one are not affected.
        ready = [r for r in self._known.values() if r.ready]
        self.rotation = [r for r in ready if not r.ejected] or ready
        self._changed()
