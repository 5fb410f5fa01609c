"""Tritons that join and leave a running service: by a real DNS server, with Tritons of a few lines behind the names."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.backends.triton.supervised import CONFIG, FakeTriton
from tests.dns_server import DnsServer, dns_server
from tests.planning.rig import RigOptions, example_backend, example_device, example_request, example_spec
from tests.policy.requests import first
from wavserve.app.endpoints import Endpoints, Serving
from wavserve.app.members import MISSING_ANSWERS, Members, follow
from wavserve.app.triton_fleet import connected
from wavserve.backends.fake import FakeBackend
from wavserve.backends.triton.health import Supervisor
from wavserve.bundle.golden import Golden, pack
from wavserve.core.errors import ModelDown, NotReady, SettingsError
from wavserve.core.verbs import MODELS
from wavserve.planning.device import Device, Health
from wavserve.policy.parts import PolicyParts
from wavserve.policy.placement import Placement
from wavserve.policy.policy import Policy
from wavserve.policy.sessions import MemorySessions
from wavserve.scheduling.ledger import Ticket
from wavserve.system.processes import Process
from wavserve.system.telemetry import Metrics
from wavserve.system.vital_tasks import VitalTask

DIGEST = "d" * 64
FIRST, SECOND, THIRD = "127.0.0.2", "127.0.0.3", "127.0.0.4"


class Pod:
    """A Triton at one address: a fake one to its supervisor, and a fake backend to the plans."""

    def __init__(self, number: int) -> None:
        self.triton = FakeTriton()
        self.triton.loaded = dict.fromkeys(MODELS, True)
        self.triton.computed_by = Process(2**22 + 1, number)
        self.backend: FakeBackend = example_backend(RigOptions())
        self.obstacle: Exception | None = None
        """why no device can be made of it; None: one can"""
        self.watch_obstacle: Exception | None = None
        """why its supervisor cannot begin to watch, the first time"""

    def has_golden(self, golden: Golden) -> None:
        self.triton.golden_plan, self.triton.golden_digest = pack(golden), golden.digest

    def dies(self) -> None:
        """It answers nothing any more, and its process is gone."""
        self.triton.loaded = dict.fromkeys(MODELS, False)
        self.triton.broken = set(MODELS)

        async def gone(verb: str) -> None:
            raise ModelDown(f"{verb}: gone")

        self.backend.before = gone


class Watching(Supervisor):
    """A supervisor that a test may keep from watching once."""

    def __init__(self, pod: Pod, *args: Any) -> None:
        super().__init__(*args)
        self._pod = pod

    def watch(self) -> None:
        if (obstacle := self._pod.watch_obstacle) is not None:
            self._pod.watch_obstacle = None
            raise obstacle
        super().watch()


class Cluster:
    """A gateway's fleet, of Tritons at the addresses that DNS tells."""

    def __init__(self, dns: DnsServer, drain_s: float = 20.0) -> None:
        self.dns, self.metrics, self.drain_s = dns, Metrics(), drain_s
        self.pods: dict[str, Pod] = {}
        self.changed, self.trouble = asyncio.Event(), asyncio.Event()
        self.members = Members([f"dns://{dns.at}/triton.:8001"], "gateway-0")
        self.endpoints = Endpoints(self.members, self._watched)
        self.placement = Placement([], wait_s=5.0, changed=self.changed)
        parts = PolicyParts(example_spec(), DIGEST, self.placement, MemorySessions(60.0, 16), 16, "0")
        self.policy = Policy(parts)

    def pod(self, host: str) -> Pod:
        return self.pods.setdefault(f"{host}:8001", Pod(len(self.pods)))

    async def start(self) -> None:
        """Until the gateway takes plans, and follows the name."""
        await self.endpoints.first_up(20.0)
        serving = Serving(self.placement, self._device, self.drain_s, self.metrics.calls.forget)
        self.endpoints.serve(serving)
        await self.policy.warm_up()
        self.following = asyncio.create_task(self.follow())

    async def follow(self) -> None:
        await follow([self.members], 0.01, self.trouble, self.endpoints.update)

    async def close(self) -> None:
        self.following.cancel()
        await self.policy.drain(0.0)
        await asyncio.gather(*(device.batcher.close() for device in self.placement.devices))
        await self.endpoints.close()

    async def tells(self, *hosts: str) -> None:
        """DNS has these addresses from now on; waits until the gateway has heard it often enough."""
        self.dns.addresses = hosts
        await self.answers(MISSING_ANSWERS + 1)

    async def answers(self, number: int) -> None:
        """Waits until DNS was asked so many times more."""
        before = self.dns.questions["triton. A"]
        await until(lambda: self.dns.questions["triton. A"] >= before + number)

    def names(self, state: Health = Health.UP) -> set[str]:
        return {device.name for device in self.placement.devices if device.state is state}

    def shown(self) -> set[str]:
        """The devices whose metrics are shown."""
        samples = [each for metric in self.metrics.registry.collect() for each in metric.samples]
        return {each.labels["device"] for each in samples if "device" in each.labels}

    def _watched(self, name: str) -> Supervisor:
        def on_change(model: str, up: bool) -> None:
            self.metrics.calls.model(name, model, up)
            self.changed.set()

        supervisor = Watching(self.pods[name], name, self.pods[name].triton, CONFIG, None, on_change)  # type: ignore[arg-type]
        supervisor.on_repair = partial(self.metrics.calls.repaired, name)
        return supervisor

    def _device(self, watched: Supervisor) -> Device:
        if (obstacle := self.pods[watched.name].obstacle) is not None:
            raise obstacle
        device = connected(example_device(self.pods[watched.name].backend, RigOptions()), watched, DIGEST)
        device.batcher.start()
        return device


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the condition is nobody's event
            await asyncio.sleep(0.001)


@pytest.fixture
def dns() -> Iterator[DnsServer]:
    with dns_server() as server:
        yield server


@asynccontextmanager
async def running(dns: DnsServer, *hosts: str, drain_s: float = 20.0) -> AsyncIterator[Cluster]:
    """A gateway that has begun with the Tritons at these addresses."""
    cluster = Cluster(dns, drain_s)
    dns.addresses = hosts
    for host in hosts:
        cluster.pod(host)
    await cluster.start()
    try:
        await until(lambda: cluster.names() == {f"{host}:8001" for host in hosts})
        yield cluster
    finally:
        await cluster.close()


async def test_a_triton_that_joins_is_warmed_and_gets_plans(dns: DnsServer) -> None:
    async with running(dns, FIRST) as cluster:
        joined = cluster.pod(SECOND)
        await cluster.tells(FIRST, SECOND)
        await until(lambda: cluster.names() == {f"{FIRST}:8001", f"{SECOND}:8001"})
        assert {verb for verb, _, _ in joined.backend.calls} >= {"encode_images", "imagine", "score", "decode"}
        assert cluster.shown() == {f"{FIRST}:8001", f"{SECOND}:8001"}
        warm_up = len(joined.backend.calls)
        await asyncio.gather(*(cluster.policy.plan(first(seed)) for seed in range(4)))
        assert len(joined.backend.calls) > warm_up


async def test_a_triton_that_leaves_ends_its_plans_and_gets_no_others(dns: DnsServer) -> None:
    async with running(dns, FIRST, SECOND) as cluster:
        leaving, staying = cluster.pod(FIRST), cluster.pod(SECOND)
        under_way, go_on = asyncio.Event(), asyncio.Event()

        async def hold(verb: str) -> None:
            under_way.set()
            await go_on.wait()

        leaving.backend.before = staying.backend.before = hold
        plans = [asyncio.create_task(cluster.policy.plan(first(seed))) for seed in range(2)]
        await under_way.wait()
        await until(lambda: [device.plans for device in cluster.placement.devices] == [1, 1])
        await cluster.tells(SECOND)
        await until(lambda: cluster.names() == {f"{SECOND}:8001"})
        assert f"{FIRST}:8001" in cluster.shown(), "it still has a plan"
        calls = len(leaving.backend.calls)
        go_on.set()
        await asyncio.gather(*plans)
        assert len(leaving.backend.calls) > calls, "the plan went on where it was"
        await until(lambda: cluster.shown() == {f"{SECOND}:8001"})
        calls = len(leaving.backend.calls)
        await asyncio.gather(*(cluster.policy.plan(first(seed)) for seed in range(4)))
        assert len(leaving.backend.calls) == calls


async def test_plans_of_a_triton_that_is_gone_are_made_again_elsewhere(dns: DnsServer) -> None:
    """Its calls never end: they are given up, and nobody waits for them."""
    async with running(dns, FIRST, SECOND, drain_s=0.0) as cluster:
        undisturbed = await cluster.policy.plan(first(1))
        hanging, forever = asyncio.Event(), asyncio.Event()

        async def hang(verb: str) -> None:
            hanging.set()
            await forever.wait()

        gone = cluster.pod(FIRST)
        gone.backend.before = hang
        gone.triton.give_up = lambda model, test_calls=True: forever.set()  # type: ignore[method-assign]
        plans = [asyncio.create_task(cluster.policy.plan(first(1))) for _ in range(2)]
        await hanging.wait()
        await cluster.tells(SECOND)
        for plan in plans:
            np.testing.assert_array_equal((await plan).actions, undisturbed.actions)
        await until(lambda: cluster.shown() == {f"{SECOND}:8001"})


async def test_a_triton_that_is_replaced_at_another_address_leaves_no_trace(dns: DnsServer) -> None:
    async with running(dns, FIRST) as cluster:
        cluster.pod(FIRST).dies()
        await until(lambda: not cluster.policy.ready)
        cluster.pod(SECOND)
        await cluster.tells(SECOND)
        await until(lambda: cluster.policy.ready)
        await cluster.policy.plan(first())
        await until(lambda: cluster.shown() == {f"{SECOND}:8001"})


@pytest.mark.parametrize("trouble", ["silent", "empty"])
async def test_a_fleet_outlives_its_dns(dns: DnsServer, trouble: str) -> None:
    async with running(dns, FIRST, SECOND) as cluster:
        if trouble == "silent":
            dns.silent = True
            await cluster.answers(1)
        else:
            await cluster.tells()
        await cluster.policy.plan(first())
        assert cluster.names() == {f"{FIRST}:8001", f"{SECOND}:8001"}


async def test_answers_that_flap_change_nothing(dns: DnsServer) -> None:
    async with running(dns, FIRST, SECOND) as cluster:
        devices = cluster.placement.devices
        for hosts in ((FIRST,), (SECOND,), (FIRST, FIRST, SECOND)) * 2:
            dns.addresses = hosts
            await cluster.answers(1)
        assert cluster.placement.devices == devices


async def test_a_triton_that_comes_back_is_taken_up_again(dns: DnsServer) -> None:
    """While it is drained it is not: it would be two devices."""
    async with running(dns, FIRST, SECOND) as cluster:
        under_way, go_on = asyncio.Event(), asyncio.Event()

        async def hold(verb: str) -> None:
            under_way.set()
            await go_on.wait()

        cluster.pod(FIRST).backend.before = hold
        plans = [asyncio.create_task(cluster.policy.plan(first(seed))) for seed in range(2)]
        await under_way.wait()
        await cluster.tells(SECOND)
        await until(lambda: cluster.names() == {f"{SECOND}:8001"})
        await cluster.tells(FIRST, SECOND)
        assert [device.name for device in cluster.placement.devices] == [f"{SECOND}:8001"]
        go_on.set()
        await asyncio.gather(*plans)
        await until(lambda: cluster.names() == {f"{FIRST}:8001", f"{SECOND}:8001"})
        assert cluster.shown() == {f"{FIRST}:8001", f"{SECOND}:8001"}


async def test_an_address_that_another_policy_has_taken_is_refused_with_both_digests(
    dns: DnsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """The gateway is unready while it is there, as with listed addresses: no robot meets one of two by chance."""
    async with running(dns, FIRST, SECOND) as cluster:
        reused = cluster.pod(SECOND).triton
        reused.digest, reused.computed_by = "e" * 64, Process(2**22 + 1, 99)
        await until(lambda: cluster.names(Health.WRONG_POLICY) == {f"{SECOND}:8001"})
        assert not cluster.policy.ready
        assert f"expected {'d' * 16}, got {'e' * 16}" in caplog.text
        await cluster.tells(FIRST)
        await until(lambda: cluster.policy.ready)
        await cluster.policy.plan(first())


async def test_an_address_that_a_pod_of_the_same_policy_has_taken_is_warmed_again(dns: DnsServer) -> None:
    async with running(dns, FIRST) as cluster:
        pod = cluster.pod(FIRST)
        calls = len(pod.backend.calls)
        pod.triton.computed_by = Process(2**22 + 1, 99)
        await until(lambda: len(pod.backend.calls) > calls)
        await until(lambda: cluster.policy.ready)


async def test_a_start_waits_for_dns_and_for_a_triton(dns: DnsServer) -> None:
    cluster = Cluster(dns)
    starting = asyncio.create_task(cluster.start())
    await until(lambda: dns.questions["triton. A"] >= 1)
    assert not starting.done()
    cluster.pod(FIRST)
    dns.addresses = (FIRST,)
    await starting
    assert cluster.policy.ready
    await cluster.close()


async def test_a_start_without_any_address_ends_with_the_reason(dns: DnsServer) -> None:
    with pytest.raises(ModelDown, match="no address is known of any Triton"):
        await Cluster(dns).endpoints.first_up(0.0)


async def test_one_triton_of_another_version_does_not_stop_a_start_but_all_do(dns: DnsServer) -> None:
    cluster = Cluster(dns)
    dns.addresses = (FIRST, SECOND)
    cluster.pod(FIRST).triton.verbs = {"encoder": {}}
    cluster.pod(SECOND)
    await cluster.start()
    assert cluster.names() == {f"{SECOND}:8001"}
    await cluster.close()
    dns.addresses = (FIRST,)
    alone = Cluster(dns)
    alone.pod(FIRST).triton.verbs = {"encoder": {}}
    with pytest.raises(SettingsError, match="run the same version"):
        await alone.endpoints.first_up(20.0)
    await alone.endpoints.close()


async def test_a_triton_that_cannot_be_taken_up_keeps_no_other_out_and_may_leave(
    dns: DnsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(dns, FIRST) as cluster:
        cluster.pod(SECOND).obstacle = ValueError("a bug")
        cluster.pod(THIRD)
        await cluster.tells(FIRST, SECOND, THIRD)
        await until(lambda: cluster.names() == {f"{FIRST}:8001", f"{THIRD}:8001"})
        assert f"{SECOND}:8001 could not be taken up" in caplog.text
        await cluster.tells(THIRD)
        await until(lambda: cluster.shown() == {f"{THIRD}:8001"})
        cluster.pod(SECOND).obstacle = None
        await cluster.tells(SECOND, THIRD)
        await until(lambda: cluster.names() == {f"{SECOND}:8001", f"{THIRD}:8001"})


@pytest.mark.parametrize("part", ["watch", "add"])
async def test_a_triton_that_is_taken_up_by_half_is_taken_up_again(
    dns: DnsServer, part: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Its first device takes no groups any more: nothing of it goes on."""
    async with running(dns, FIRST) as cluster:
        obstacles = [ValueError("a bug")]
        begun: list[Device] = []

        def prepare(device: Device) -> None:
            begun.append(device)
            if part == "add" and obstacles and device.name != f"{FIRST}:8001":
                raise obstacles.pop()

        cluster.placement.with_each(prepare)
        if part == "watch":
            cluster.pod(SECOND).watch_obstacle = obstacles.pop()
        else:
            cluster.pod(SECOND)
        await cluster.tells(FIRST, SECOND)
        await until(lambda: cluster.names() == {f"{FIRST}:8001", f"{SECOND}:8001"})
        assert f"{SECOND}:8001 could not be taken up" in caplog.text
        await cluster.policy.plan(first())
        for device in begun:
            if device not in cluster.placement.devices:
                with pytest.raises(ModelDown):
                    await device.perception.encode_anew("a", Ticket())


async def test_a_triton_that_joins_while_the_service_ends_leaves_no_batcher_open(dns: DnsServer) -> None:
    cluster = Cluster(dns)
    dns.addresses = (FIRST,)
    cluster.pod(FIRST)
    await cluster.start()
    cluster.endpoints.follow(VitalTask(cluster.follow(), "the discovery"))
    await cluster.placement.close()
    cluster.pod(SECOND)
    dns.addresses = (FIRST, SECOND)
    await until(lambda: len(cluster.placement.devices) == 2)
    joined = cluster.placement.devices[1]
    await cluster.close()
    async with asyncio.timeout(10):
        with pytest.raises((ModelDown, NotReady)):
            await joined.perception.encode_anew("a", Ticket())


async def test_the_last_triton_stays_while_it_answers_until_another_is_warm(
    dns: DnsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(dns, FIRST) as cluster:
        cold = asyncio.Event()
        cluster.pod(SECOND).backend.before = lambda verb: wait_for(cold)
        await cluster.tells(SECOND)
        await cluster.answers(3)
        assert cluster.names() == {f"{FIRST}:8001"}
        await cluster.policy.plan(first())
        assert caplog.text.count(f"{FIRST}:8001 has left DNS") <= 1
        cold.set()
        await until(lambda: cluster.shown() == {f"{SECOND}:8001"})
        await cluster.policy.plan(first())


async def test_a_triton_that_stays_for_want_of_another_leaves_when_it_fails(dns: DnsServer) -> None:
    async with running(dns, FIRST) as cluster:
        cold = asyncio.Event()
        cluster.pod(SECOND).backend.before = lambda verb: wait_for(cold)
        await cluster.tells(SECOND)
        await cluster.answers(3)
        assert cluster.names() == {f"{FIRST}:8001"}
        cluster.pod(FIRST).dies()
        await until(lambda: cluster.shown() == {f"{SECOND}:8001"})
        cold.set()
        await until(lambda: cluster.policy.ready)


async def wait_for(event: asyncio.Event) -> None:
    await event.wait()


async def test_an_end_closes_all_endpoints_although_one_cannot_be_closed(
    dns: DnsServer, caplog: pytest.LogCaptureFixture
) -> None:
    """One is leaving meanwhile, with a call that never ends."""
    async with running(dns, FIRST, SECOND) as cluster:
        leaving, staying = cluster.pod(FIRST), cluster.pod(SECOND)
        hanging, forever = asyncio.Event(), asyncio.Event()

        async def hang(verb: str) -> None:
            hanging.set()
            await forever.wait()

        def fail(model: str, test_calls: bool = True) -> None:
            raise ValueError("a bug")

        leaving.backend.before = staying.backend.before = hang
        leaving.triton.give_up = fail  # type: ignore[method-assign]
        staying.triton.give_up = lambda model, test_calls=True: forever.set()  # type: ignore[method-assign]
        plans = [asyncio.create_task(cluster.policy.plan(first(seed))) for seed in range(2)]
        await hanging.wait()
        await cluster.tells(SECOND)
        await until(lambda: cluster.names() == {f"{SECOND}:8001"})
        await cluster.endpoints.close()
        assert "close" in leaving.triton.calls
        assert "close" in staying.triton.calls
        assert f"{FIRST}:8001 could not be closed" in caplog.text
        assert cluster.shown() == {f"{SECOND}:8001"}, "no metric tells for ever of one that has left"
        forever.set()
        await asyncio.gather(*plans, return_exceptions=True)


def example_golden() -> Golden:
    request = example_request(example_spec())
    return Golden(request.images, request.state, "go", 3, np.zeros((6, 2), np.float32))


async def test_the_golden_plan_comes_from_any_triton_that_has_it(dns: DnsServer) -> None:
    """The first one dies between its description and its golden plan."""
    cluster, golden = Cluster(dns), example_golden()
    dns.addresses = (FIRST, SECOND)
    for host in dns.addresses:
        cluster.pod(host).has_golden(golden)
    about = await cluster.endpoints.first_up(20.0)
    cluster.pod(FIRST).triton.golden_plan = ModelDown("gone")
    await until(lambda: all(each.models.up for each in cluster.endpoints.supervisors))
    found = await cluster.endpoints.golden_of(about, example_spec())
    assert found is not None
    assert found.digest == golden.digest
    await cluster.endpoints.close()


async def test_a_start_waits_for_the_golden_plan_and_never_goes_without_it(dns: DnsServer) -> None:
    cluster, golden = Cluster(dns), example_golden()
    dns.addresses = (FIRST,)
    pod = cluster.pod(FIRST)
    pod.has_golden(golden)
    sent, pod.triton.golden_plan = pod.triton.golden_plan, ModelDown("gone")
    about = await cluster.endpoints.first_up(20.0)
    with pytest.raises(ModelDown, match="gone"):
        await cluster.endpoints.golden_of(about, example_spec(), within_s=0.0)
    waiting = asyncio.create_task(cluster.endpoints.golden_of(about, example_spec()))
    await asyncio.sleep(0)
    pod.triton.golden_plan = sent
    found = await waiting
    assert found is not None
    assert await cluster.endpoints.golden_of(replace(about, golden_digest=""), example_spec()) is None
    await cluster.endpoints.close()


async def test_the_golden_plan_is_waited_for_no_longer_than_allowed_although_tritons_are_silent(dns: DnsServer) -> None:
    """All are asked at once: a silent one holds up no other."""
    cluster, golden = Cluster(dns), example_golden()
    dns.addresses = (FIRST, SECOND, THIRD)
    for host in dns.addresses:
        cluster.pod(host).has_golden(golden)
    about = await cluster.endpoints.first_up(20.0)
    await until(lambda: all(each.models.up for each in cluster.endpoints.supervisors))
    for host in dns.addresses:
        cluster.pod(host).triton.silent = True
    async with asyncio.timeout(8):  # far less than one of them may take by itself
        with pytest.raises(ModelDown, match="no answer before the deadline"):
            await cluster.endpoints.golden_of(about, example_spec(), within_s=0.5)
    cluster.pod(THIRD).triton.silent = False
    async with asyncio.timeout(8):
        assert await cluster.endpoints.golden_of(about, example_spec(), within_s=60.0) is not None
    await cluster.endpoints.close()


async def test_a_start_waits_no_longer_than_allowed_for_tritons_that_say_nothing(dns: DnsServer) -> None:
    cluster = Cluster(dns)
    dns.addresses = (FIRST,)
    cluster.pod(FIRST).triton.hanging = set(MODELS)
    async with asyncio.timeout(10):
        with pytest.raises(ModelDown, match=r"no Triton has started within triton.load_s \(0\.1 s\): it is silent"):
            await cluster.endpoints.first_up(0.1)
    await cluster.endpoints.close()


async def test_a_start_without_a_triton_tells_the_last_error_and_logs_it_once(
    dns: DnsServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="wavserve.app.endpoints")
    cluster = Cluster(dns)
    dns.addresses = (FIRST,)
    cluster.pod(FIRST).dies()
    async with asyncio.timeout(20):
        with pytest.raises(ModelDown, match=r"triton.load_s \(2\.5 s\): .*encoder") as raised:
            await cluster.endpoints.first_up(2.5)
    waits = [record.getMessage() for record in caplog.records if "waiting for Triton" in record.getMessage()]
    assert len(waits) == 1
    assert raised.value.message.rpartition("s): ")[2] in waits[0]
    await cluster.endpoints.close()
